"""Transactions: named, bounded, run again after a conflict, and refused in words when the database cannot."""

import asyncio
import contextlib
import socket
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from stockade.kit import database as kit_database
from stockade.kit.database import Connection, RetryTransaction
from stockade.kit.errors import Invalid, Refusal, Unavailable
from stockade.kit.metrics import TRANSACTION_RETRIES, TRANSACTION_SECONDS
from stockade.postgres import role_of
from tests.conftest import PASSWORDS, ServerThread
from tests.kit.probe import Running, count_effects, make_context, make_settings, running, write_effect

ROUTE = "/api/v1/probes"


async def set_counter(connection: Connection, *, name: str, value: int) -> None:
    await connection.execute(
        """
        INSERT INTO feed_cursors (source, position) VALUES ($1, $2) ON CONFLICT (source) DO UPDATE SET position = $2
        """,
        name, value,
    )  # fmt: skip


async def get_counter(connection: Connection, *, name: str) -> int | None:
    return await connection.fetchval("SELECT position FROM feed_cursors WHERE source = $1", name)


async def test_a_failing_verb_leaves_nothing(probe: Running):
    async def fail(connection: Connection) -> None:
        await write_effect(connection, subject="left behind")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await probe.database.run(fail)
    assert await probe.database.read(count_effects, subject="left behind") == 0


async def test_a_transaction_has_the_name_of_its_verb_in_the_metrics(probe: Running):
    await probe.database.run(write_effect, subject="named")
    names = {
        labels["transaction"] for metric in TRANSACTION_SECONDS.collect() for labels in map(_labels, metric.samples)
    }
    assert "probe.write_effect" in names


def _labels(sample: Any) -> dict[str, str]:
    return sample.labels


async def test_verbs_that_lock_each_other_both_come_to_their_end(probe: Running):
    """A deadlock: the two lock the same two rows in opposite order."""
    for name in ("left", "right"):
        await probe.database.run(set_counter, name=name, value=0)

    async def take(connection: Connection, *, names: list[str]) -> None:
        for name in names:
            await connection.execute("UPDATE feed_cursors SET position = position + 1 WHERE source = $1", name)
            await asyncio.sleep(0.1)

    await asyncio.gather(
        probe.database.run(take, names=["left", "right"]), probe.database.run(take, names=["right", "left"])
    )
    assert [await probe.database.read(get_counter, name=name) for name in ("left", "right")] == [2, 2]
    assert TRANSACTION_RETRIES.labels("probe-service", "test_database.take")._value.get() >= 1


async def test_a_serialization_failure_runs_again(probe: Running):
    await probe.database.run(set_counter, name="serial", value=0)

    async def add(connection: Connection) -> None:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        seen = await get_counter(connection, name="serial")
        await asyncio.sleep(0.02)
        await set_counter(connection, name="serial", value=(seen or 0) + 1)

    await asyncio.gather(*(probe.database.run(add) for _ in range(3)))
    assert await probe.database.read(get_counter, name="serial") == 3


async def test_endless_conflicts_are_given_up(probe: Running):
    attempts = [0]

    async def conflict(_: Connection) -> None:
        attempts[0] += 1
        raise RetryTransaction

    with pytest.raises(Unavailable) as caught:
        await probe.database.run(conflict)
    assert (caught.value.code, attempts[0]) == ("conflicting_changes", 6)


async def test_a_pool_without_a_free_connection_says_that_it_is_busy(
    module_database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kit_database, "_ACQUIRE_TIMEOUT_S", 0.3)
    settings = make_settings(module_database_url, PASSWORDS, database_pool_size=1)
    async with running(make_context(settings)) as small:
        hogging = asyncio.create_task(small.ask("GET", "/api/v1/probes/sleep?seconds=2.5"))
        await asyncio.sleep(0.2)
        answers = [
            await small.ask("GET", "/api/v1/probes"),
            await small.ask("POST", "/api/v1/probes", {"text": "busy"}),
        ]
        assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "overloaded")] * 2
        assert all("retry-after" in answer.headers for answer in answers)
        assert (await hogging).status_code == 200
        assert (await small.ask("GET", "/api/v1/probes")).status_code == 200


async def test_a_lock_that_is_not_given_back_is_not_waited_for_for_ever(
    probe: Running, monkeypatch: pytest.MonkeyPatch
):
    async def hold(connection: Connection) -> None:
        await set_counter(connection, name="locked", value=1)
        await asyncio.sleep(0.6)

    async def wait(connection: Connection) -> None:
        await connection.execute("SET LOCAL lock_timeout = '100ms'")
        await set_counter(connection, name="locked", value=2)

    holding = asyncio.create_task(probe.database.run(hold))
    await asyncio.sleep(0.2)
    with pytest.raises(Unavailable) as caught:
        await probe.database.run(wait)
    assert caught.value.code == "database_timeout"
    await holding


async def test_a_statement_that_takes_too_long_is_cut(probe: Running):
    async def dawdle(connection: Connection) -> None:
        await connection.execute("SET LOCAL statement_timeout = '100ms'")
        await connection.execute("SELECT pg_sleep(5)")

    with pytest.raises(Unavailable) as caught:
        await probe.database.run(dawdle)
    assert caught.value.code == "database_timeout"


async def show(connection: Connection, *, name: str) -> str:
    return await connection.fetchval("SELECT current_setting($1)", name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statement_timeout", "15s"), ("lock_timeout", "5s"), ("idle_in_transaction_session_timeout", "30s"),
        ("TimeZone", "UTC"), ("search_path", '"user"'), ("application_name", "probe-service"),
    ],
)  # fmt: skip
async def test_every_connection_has_its_bounds(probe: Running, name: str, value: str):
    assert await probe.database.read(show, name=name) == value


class Killer:
    """Ends the session that a verb is running in, as an administrator or a failing network would."""

    def __init__(self, admin_url: str, times: int) -> None:
        self.admin_url = admin_url
        self.times = times
        self.runs = 0

    async def __call__(self, connection: Connection) -> int:
        self.runs += 1
        if self.runs <= self.times:
            await self._kill(await connection.fetchval("SELECT pg_backend_pid()"))
        return await connection.fetchval("SELECT 42")

    async def _kill(self, process: int) -> None:
        admin = await asyncpg.connect(self.admin_url)
        try:
            await admin.execute("SELECT pg_terminate_backend($1)", process)
        finally:
            await admin.close()
        await asyncio.sleep(0.05)

    __name__ = "killer"


async def test_a_read_whose_connection_is_lost_is_read_on_another(probe: Running, postgres: ServerThread):
    killer = Killer(postgres.server.url, times=1)
    assert await probe.database.read(killer) == 42
    assert killer.runs == 2


async def test_of_a_whole_pool_that_is_lost_one_request_is_refused_at_most(
    module_database_url: str, postgres: ServerThread
):
    """A restarted server has closed every connection; the pool need not find that out one request at a time."""
    async with running(make_context(make_settings(module_database_url, PASSWORDS, database_pool_size=8))) as probe:
        await asyncio.gather(*(probe.ask("GET", "/api/v1/probes/sleep?seconds=0.2") for _ in range(8)))
        assert probe.database._pool is not None
        assert probe.database._pool.get_size() == 8
        admin = await asyncpg.connect(postgres.server.url)
        name = module_database_url.partition("?")[0].rpartition("/")[2]
        kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND usename = $2"
        for _ in range(3):
            await admin.execute(kill, name, role_of("user"))
            statuses = [(await probe.ask("GET", ROUTE)).status_code for _ in range(8)]
            assert statuses == [200] * 8
        await admin.execute(kill, name, role_of("user"))
        statuses = [(await probe.ask("POST", ROUTE, {"text": "after a loss"})).status_code for _ in range(8)]
        assert statuses.count(201) >= 7
        await admin.close()


async def test_a_read_is_not_tried_for_ever(probe: Running, postgres: ServerThread):
    killer = Killer(postgres.server.url, times=9)
    with pytest.raises(Unavailable):
        await probe.database.read(killer)
    assert killer.runs == 2


async def test_a_transaction_whose_connection_is_lost_is_refused_and_not_repeated(
    probe: Running, postgres: ServerThread
):
    killer = Killer(postgres.server.url, times=1)
    with pytest.raises(Unavailable) as caught:
        await probe.database.run(killer)
    assert (caught.value.code, killer.runs) == ("database_unavailable", 1)
    assert await probe.database.run(killer) == 42


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
async def test_a_text_that_no_text_may_be_is_refused(probe: Running, value: str):
    with pytest.raises(Invalid) as caught:
        await probe.database.run(write_effect, subject=value)
    assert caught.value.code == "invalid_value"


async def test_a_number_that_is_too_large_is_refused(probe: Running):
    async def overflow(connection: Connection) -> None:
        await connection.fetchval("SELECT $1::numeric(18, 6)", Decimal(10) ** 12)

    with pytest.raises(Invalid) as caught:
        await probe.database.run(overflow)
    assert caught.value.code == "invalid_value"
    with pytest.raises(Invalid):
        await probe.database.run(set_counter, name="large", value=2**63)


async def test_a_database_that_is_missing_is_not_a_failure_of_the_request(module_database_url: str):
    url = module_database_url.replace("/template_", "/missing_")
    assert url != module_database_url
    async with running(make_context(make_settings(url, PASSWORDS))) as lost:
        answer = await lost.ask("GET", "/api/v1/probes")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert (await lost.http.get("/health/ready")).status_code == 503
        assert (await lost.http.get("/health")).status_code == 200


async def test_a_server_that_never_answers_is_away_and_not_busy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kit_database, "_CONNECT_TIMEOUT_S", 0.2)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/stockade?sslmode=disable"
        async with running(make_context(make_settings(url, PASSWORDS))) as lost:
            answer = await lost.ask("GET", "/api/v1/probes")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


async def test_a_refusal_is_not_run_again(probe: Running):
    runs = [0]

    async def refuse(_: Connection) -> None:
        runs[0] += 1
        raise Refusal("no")

    with pytest.raises(Refusal):
        await probe.database.run(refuse)
    assert runs == [1]
