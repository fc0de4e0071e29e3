"""Whatever is killed under load, no acknowledged write is lost, doubled or half there, and the product is back by itself."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import aiohttp

from tests.conftest import ServerThread
from tests.e2e.crowd import ANSWER_LIMIT_S, Crowd, crowd_at_work
from tests.e2e.processes import (
    ADMIN_EMAIL,
    ADMIN_PASSWORD,
    everything_up,
    five_processes,
    free_port,
    passable_directory,
    succeed,
)

BACK_WITHIN_S = 10


async def test_killing_postgresql_costs_503s_for_a_moment_and_nothing_else():
    with passable_directory() as directory:
        data = directory / "data"
        async with everything_up(data) as (url, running), crowd_at_work(url, ADMIN_EMAIL, ADMIN_PASSWORD) as crowd:
            await crowd.settled(writes=100)
            os.kill(postmaster_of(data), signal.SIGKILL)
            await running.wait_for("PostgreSQL runs again")
            await crowd.settled(writes=100)
            await finish(crowd)
            assert crowd.refusals
            assert not crowd.lost, crowd.lost[:5]
            await succeed("integrity", "--data", str(data), environment={})


async def test_killing_stockade_costs_the_time_of_a_start_and_nothing_else():
    with passable_directory() as directory:
        data, port = directory / "data", free_port()
        async with contextlib.AsyncExitStack() as stack:
            url, running = await stack.enter_async_context(everything_up(data, port=port))
            crowd = await stack.enter_async_context(crowd_at_work(url, ADMIN_EMAIL, ADMIN_PASSWORD))
            await crowd.settled(writes=100)
            await running.end(signal.SIGKILL)
            began = time.monotonic()
            async with everything_up(data, port=port):
                assert time.monotonic() - began < BACK_WITHIN_S
                await crowd.settled(writes=100)
                await finish(crowd)
                assert crowd.lost
                await succeed("integrity", "--data", str(data), environment={})


async def test_killing_one_service_of_five_leaves_the_others_at_work(bare_postgres: ServerThread):
    with passable_directory() as directory:
        async with (
            five_processes(bare_postgres.server.url, directory) as fleet,
            crowd_at_work(fleet.url, ADMIN_EMAIL, ADMIN_PASSWORD, orders_url=fleet.urls["order-service"]) as crowd,
        ):
            await crowd.settled(writes=100)
            async with others_answering(fleet.urls, crowd.token):
                await fleet.processes["inventory-service"].end(signal.SIGKILL)
                await asyncio.sleep(1)
                await fleet.start("inventory-service")
            await crowd.settled(writes=100)
            await finish(crowd)
            assert "/orders service_unavailable" in crowd.refusals
            assert not [lost for lost in crowd.lost if lost.startswith("/orders")]
            await succeed("integrity", environment=fleet.owner)


async def finish(crowd: Crowd) -> None:
    """Stop the load, repeat what has no answer, and compare the books with what the clients were told."""
    crowd.go_home()
    await asyncio.sleep(0.5)
    repeated = await crowd.repeat_unanswered()
    assert not crowd.wrong, crowd.wrong[:5]
    assert repeated > 0
    assert crowd.slowest_s < ANSWER_LIMIT_S
    await crowd.check_replays()
    await crowd.check_books()


@contextlib.asynccontextmanager
async def others_answering(urls: Mapping[str, str], token: str) -> AsyncGenerator[None]:
    """Meanwhile, every read of the services that were not killed is answered."""
    reads = {
        "user-service": "/users",
        "product-catalog-service": "/products",
        "order-service": "/orders",
        "supplier-service": "/suppliers",
    }
    answers: list[tuple[str, int]] = []

    async def read() -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            while True:
                for name, path in reads.items():
                    async with session.get(f"{urls[name]}/api/v1{path}") as answer:
                        answers.append((name, answer.status))
                await asyncio.sleep(0.05)

    reader = asyncio.create_task(read())
    yield
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader
    assert set(answers) == {(name, 200) for name in reads}


def postmaster_of(data: Path) -> int:
    return int((data / "postgres" / "postmaster.pid").read_text().partition("\n")[0])
