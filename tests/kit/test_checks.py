"""The self-audit's engine: what breaks a promise is counted, shown by example, and given the time that it needs."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import asyncpg
import pytest

from stockade.kit.integrity import FOUND_MAX, Check, run_checks
from stockade.kit.metrics import INTEGRITY_VIOLATIONS
from tests.conftest import PASSWORDS, ServerThread
from tests.kit.probe import SERVICE, Running, make_context, make_settings, running
from tests.world import issue_token

KEPT = Check("I90", "nothing is found", "SELECT 'x' WHERE false")
BROKEN = Check("I91", "seven are found", "SELECT 'row ' || n FROM generate_series(1, 7) n")
FLOODED = Check("I92", "more are found than anybody counts", "SELECT n FROM generate_series(1, 5000) n")
SLOW = Check("I93", "takes longer than a request may", "SELECT 'late' FROM pg_sleep(0.6)")


@pytest.fixture(scope="module")
async def audited(module_database_url: str) -> AsyncGenerator[Running]:
    """A probe with promises, two of which are broken."""
    service = replace(SERVICE, checks=(KEPT, BROKEN, FLOODED))
    async with running(make_context(make_settings(module_database_url, PASSWORDS), service=service)) as opened:
        yield opened


async def ask(probe: Running, token: str):
    return await probe.http.get("/internal/integrity", headers={"Authorization": f"Bearer {token}"})


async def test_it_counts_what_breaks_a_promise_and_shows_some_of_it(audited: Running):
    answer = await ask(audited, issue_token(("auditor",)))
    kept, broken, flooded = answer.json()
    assert (kept["violations"], kept["examples"]) == (0, [])
    assert (broken["id"], broken["promise"], broken["service"]) == ("I91", "seven are found", "probe-service")
    assert (broken["violations"], broken["examples"]) == (7, [f"row {n}" for n in range(1, 6)])
    assert (flooded["violations"], len(flooded["examples"])) == (FOUND_MAX, 5)
    assert INTEGRITY_VIOLATIONS.labels("probe-service", "I91")._value.get() == 7
    assert INTEGRITY_VIOLATIONS.labels("probe-service", "I90")._value.get() == 0


@pytest.mark.parametrize("roles", [(), ("nobody",)])
async def test_it_is_for_those_who_may_read_it(audited: Running, roles: tuple[str, ...]):
    assert (await ask(audited, issue_token(roles))).status_code == 403


async def test_a_check_may_take_longer_than_a_request(module_database_url: str, postgres: ServerThread):
    connection = await asyncpg.connect(postgres.server.url, command_timeout=0.2)
    try:
        async with connection.transaction():
            (finding,) = await run_checks(connection, checks=(SLOW,), service="probe-service")
    finally:
        await connection.close()
    assert finding["examples"] == ["late"]
    assert finding["took_ms"] >= 500
