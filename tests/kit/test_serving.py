"""Serving on a port, and ending without a failed request."""

import asyncio
import contextlib

import httpx2
import pytest

from stockade.kit.errors import ConfigurationError
from stockade.serving import PortError, bind
from tests.conftest import PASSWORDS
from tests.kit.probe import Served, make_context, make_settings, served


@pytest.fixture
async def draining_late(module_database_url: str):
    """A probe that goes on answering for a second after it was told to stop."""
    async with served(make_context(make_settings(module_database_url, PASSWORDS)), drain_delay_s=1.0) as opened:
        yield opened


def stop(probe: Served) -> None:
    probe.context.lifecycle.stopping.set()


async def test_it_answers_and_says_goodbye_while_it_drains(draining_late: Served):
    before = await draining_late.ask("GET", "/api/v1/probes")
    assert before.headers.get("connection") != "close"
    stop(draining_late)
    answers = [await draining_late.ask("GET", "/api/v1/probes") for _ in range(3)]
    assert [(answer.status_code, answer.headers["connection"]) for answer in answers] == [(200, "close")] * 3
    refused = await draining_late.ask("GET", "/api/v1/nothing")
    assert (refused.status_code, refused.headers["connection"]) == (404, "close")


async def test_it_is_alive_and_not_ready_while_it_drains(draining_late: Served):
    stop(draining_late)
    ready = await draining_late.http.get("/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
    assert (await draining_late.http.get("/health")).status_code == 200


async def test_a_request_under_way_is_answered_before_the_end(served_probe: Served):
    waiting = asyncio.create_task(served_probe.ask("GET", "/api/v1/probes/sleep?seconds=1"))
    await asyncio.sleep(0.3)
    stop(served_probe)
    assert (await waiting).status_code == 200
    await asyncio.wait_for(asyncio.shield(served_probe.ended), 5)


async def test_it_ends_soon_when_nothing_is_under_way(served_probe: Served):
    await served_probe.ask("GET", "/api/v1/probes")
    stop(served_probe)
    await asyncio.wait_for(asyncio.shield(served_probe.ended), 3)
    with pytest.raises(httpx2.ConnectError):
        await served_probe.ask("GET", "/api/v1/probes")


async def test_it_closes_its_connections_to_the_database(served_probe: Served):
    await served_probe.ask("GET", "/api/v1/probes")
    stop(served_probe)
    await asyncio.wait_for(asyncio.shield(served_probe.ended), 5)
    assert served_probe.database._pool is not None
    assert served_probe.database._pool.get_size() == 0


async def test_clients_that_never_pause_see_no_failure_while_it_ends(draining_late: Served):
    """Each leaves when it is told to; until then every request is answered."""
    answered = [0]

    async def ask_until_told() -> None:
        while True:
            answer = await draining_late.http.get("/health")
            assert answer.status_code == 200
            answered[0] += 1
            if answer.headers.get("connection") == "close":
                return

    asking = [asyncio.create_task(ask_until_told()) for _ in range(10)]
    await asyncio.sleep(0.3)
    stop(draining_late)
    await asyncio.gather(*asking)
    assert answered[0] > 20


def test_a_taken_port_is_told_in_one_line():
    with contextlib.closing(bind("127.0.0.1", 0)) as first:
        first.listen()
        with pytest.raises(PortError, match=r"^Port \d+ on 127\.0\.0\.1 cannot be used .*--port\.$"):
            bind("127.0.0.1", first.getsockname()[1])


def test_an_address_of_another_machine_is_told_in_one_line():
    with pytest.raises((PortError, ConfigurationError), match=r"192\.0\.2\.1"):
        bind("192.0.2.1", 0)


def test_a_host_that_does_not_exist_is_a_mistake_of_the_configuration():
    with pytest.raises(ConfigurationError, match=r"no-such-host\.invalid"):
        bind("no-such-host.invalid", 0)
