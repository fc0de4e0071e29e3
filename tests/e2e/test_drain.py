"""A stop signal under load costs nobody an answer, ends within its limit, and leaves nothing behind."""

import asyncio
import collections
import contextlib
import errno
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from tests.conftest import ServerThread
from tests.e2e.crowd import sign_in
from tests.e2e.processes import (
    ADMIN_EMAIL,
    ADMIN_PASSWORD,
    Fleet,
    Running,
    everything_up,
    five_processes,
    free_port,
    passable_directory,
    wait_until_alive,
    write_secrets,
)

END_LIMIT_S = 15
"""Drain, PostgreSQL's shutdown included, on a machine that is busy otherwise; the settings allow 25 s and more."""


@dataclass
class Callers:
    """Clients that call until the port is closed, and what happened to them."""

    url: str
    token: str
    answers: collections.Counter[str] = field(default_factory=collections.Counter[str])
    failures: list[str] = field(default_factory=list[str])
    readiness: list[tuple[int, Any]] = field(default_factory=list[tuple[int, Any]])

    async def call(self, number: int, *, keep: bool) -> None:
        """Write and read in turn, on one connection or each time on a new one."""
        connector = aiohttp.TCPConnector(limit=1, force_close=not keep)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            for turn in range(100_000):
                what = self._write(session) if (turn + number) % 3 else session.get(f"{self.url}/api/v1/products")
                if not await self._note(what, "kept" if keep else "new"):
                    return
                await asyncio.sleep(0.01)

    async def watch_readiness(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{self.url}/health/ready") as answer:
                        self.readiness.append((answer.status, await answer.json()))
                except aiohttp.ClientError:
                    return
                await asyncio.sleep(0.05)

    def _write(self, session: aiohttp.ClientSession) -> Any:
        products = [{"sku": f"DRAIN-{uuid4()}", "name": "Kettle", "unit": "each"} for _ in range(20)]
        headers = {"Idempotency-Key": str(uuid4())}
        return session.post(f"{self.url}/api/v1/products/bulk", json={"products": products}, headers=headers)

    async def _note(self, request: Any, kind: str) -> bool:
        """Whether to go on: the port is still open."""
        try:
            async with request as answer:
                text = await answer.text()
                if answer.status != 200:
                    self.failures.append(f"{kind}: {answer.status} {text}")
                self.answers[kind] += 1
        except aiohttp.ClientError as error:
            if not isinstance(error, aiohttp.ClientConnectorError) or error.errno != errno.ECONNREFUSED:
                self.failures.append(f"{kind}: {type(error).__name__} {error}")
            return False
        return True


async def test_everything_ends_without_a_failed_request():
    with passable_directory() as directory:
        data = directory / "data"
        async with everything_up(data) as (url, running):
            postmaster = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
            token = await sign_in(url, ADMIN_EMAIL, ADMIN_PASSWORD)
            async with calling(Callers(url, token)) as callers:
                assert await end_under_load(running, callers) == 0
            check(callers)
            assert set(callers.readiness[-1][1]["reasons"].values()) == {"draining"}
            assert running.out[-1] == "stockade: stopped"
            assert not is_running(postmaster)
            assert not (data / "postgres" / "postmaster.pid").exists()


async def test_one_service_ends_without_a_failed_request(bare_postgres: ServerThread):
    with passable_directory() as directory:
        async with five_processes(bare_postgres.server.url, directory) as fleet:
            name = "product-catalog-service"
            token = await sign_in(fleet.url, ADMIN_EMAIL, ADMIN_PASSWORD)
            async with calling(Callers(fleet.urls[name], token)) as callers, polling(fleet, name) as poll:
                assert await end_under_load(fleet.processes[name], callers) == 0
                assert await poll == 200
            check(callers)
            assert callers.readiness[-1][1]["reason"] == "draining"


async def test_a_second_signal_does_not_wait():
    with passable_directory() as directory:
        write_secrets(directory)
        port = free_port()
        environment = {
            "STOCKADE_PORT": str(port),
            "STOCKADE_DRAIN_DELAY_S": "60",
            # Nobody listens there: a service starts all the same and is not ready.
            "STOCKADE_DATABASE_URL": f"postgresql://127.0.0.1:{free_port()}/stockade",
            "STOCKADE_JWT_SECRET_FILE": str(directory / "jwt"),
            "STOCKADE_SERVICE_SECRET_FILE": str(directory / "services" / "user-service"),
        }
        running = await Running.start("serve", "user-service", environment=environment)
        await wait_until_alive(f"http://127.0.0.1:{port}")
        running.process.terminate()
        await asyncio.sleep(1)
        assert running.process.returncode is None
        assert await running.end(limit_s=5) == 0


@contextlib.asynccontextmanager
async def calling(callers: Callers) -> AsyncGenerator[Callers]:
    """Eight kept connections, four callers with a new one each time, and somebody who asks for readiness."""
    calls = [asyncio.create_task(callers.call(number, keep=number < 8)) for number in range(12)]
    calls.append(asyncio.create_task(callers.watch_readiness()))
    yield callers
    async with asyncio.timeout(END_LIMIT_S):
        await asyncio.gather(*calls)


async def end_under_load(running: Running, callers: Callers) -> int:
    async with asyncio.timeout(30):
        while min(callers.answers["kept"], callers.answers["new"]) < 30:  # noqa: ASYNC110 - it is a count
            await asyncio.sleep(0.05)
    return await running.end(limit_s=END_LIMIT_S)


def check(callers: Callers) -> None:
    assert not callers.failures, callers.failures[:5]
    statuses = [status for status, _ in callers.readiness]
    first_refusal = statuses.index(503)
    assert set(statuses[:first_refusal]) == {200}
    assert set(statuses[first_refusal:]) == {503}


@contextlib.asynccontextmanager
async def polling(fleet: Fleet, name: str) -> AsyncGenerator[asyncio.Task[int]]:
    """Another service's long poll of 20 s for events, under way."""
    secret = (fleet.secrets / "services" / "inventory-service").read_text()
    body = {"service": "inventory-service", "secret": secret}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{fleet.urls['user-service']}/internal/service-tokens", json=body) as answer:
            headers = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}

        async def poll() -> int:
            address = f"{fleet.urls[name]}/internal/events?after=1000000000&wait_s=20"
            async with session.get(address, headers=headers) as answer:
                assert (await answer.json())["events"] == []
                return answer.status

        yield asyncio.create_task(poll())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
