"""A throw-away installation: a durable PostgreSQL, and on it `stockade up` or single services, started and stopped."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.api import EMAIL, PASSWORD, Api
from bench.errors import BenchError
from bench.processes import Process, find_free_port, stockade, wait_until
from stockade.postgres import PostgresServer, role_of

ADMINISTRATOR = {"STOCKADE_ADMIN_EMAIL": EMAIL, "STOCKADE_ADMIN_PASSWORD": PASSWORD}
START_TIMEOUT_S = 60

_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
_STATEMENT_TIMEOUT_S = 120
_SETTLE_TIMEOUT_S = 240
_LAG = "stockade_outbox_lag_events{"


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: Process
    api: Api


@dataclass(frozen=True)
class Installation:
    """PostgreSQL with the product's data; `admin` is a session of its superuser."""

    directory: Path
    server: PostgresServer
    admin: "asyncpg.Connection[asyncpg.Record]"

    @property
    def postgres_id(self) -> int:
        """The process id of PostgreSQL's server."""
        if self.server.process_id is None:
            raise BenchError("PostgreSQL has ended unexpectedly")
        return self.server.process_id

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncGenerator[Running]:
        """`stockade up` on this PostgreSQL, signed in."""
        port = find_free_port()
        process = Process(
            stockade("up", "--data", str(self.directory / "stockade"), "--port", str(port)),
            environment={**ADMINISTRATOR, "STOCKADE_DATABASE_URL": self.server.url},
            log=self.directory / "up.log",
        )
        try:
            running = await _answering(process, port)
            await running.api.sign_in()
            yield running
        finally:
            await process.stop()

    @contextlib.asynccontextmanager
    async def serve(self, *names: str) -> AsyncGenerator[dict[str, Running]]:
        """Each of these services in a process of its own, on the data that `up` has prepared."""
        ports = {name: find_free_port() for name in names}
        urls = {f"STOCKADE_{name.upper().replace('-', '_')}_URL": f"http://127.0.0.1:{ports[name]}" for name in names}
        async with contextlib.AsyncExitStack() as stack:
            processes: dict[str, Process] = {}
            for name in names:
                environment = urls | self._environment_of(name, ports[name])
                log = self.directory / f"{name}.log"
                processes[name] = Process(stockade("serve", name), environment=environment, log=log)
                stack.push_async_callback(processes[name].stop)
            yield {name: await _answering(process, ports[name]) for name, process in processes.items()}

    async def settle(self, everything: Running) -> None:
        """Let the services hear of everything that happened, and leave no housekeeping to the measurements."""
        deadline = asyncio.get_running_loop().time() + _SETTLE_TIMEOUT_S
        # Asked twice, because the figure is of the last round of a consumer, which may have begun before the last event.
        for _ in range(2):
            while any(_read_lags(await everything.api.read("/metrics"))):
                if asyncio.get_running_loop().time() > deadline:
                    raise BenchError(f"the services have not heard of everything after {_SETTLE_TIMEOUT_S} s")
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.3)
        await self.admin.execute("VACUUM ANALYZE")
        await self.admin.execute("CHECKPOINT")

    async def check_durable(self) -> None:
        """Raise BenchError when a committed row could be lost, because then nothing here would mean anything."""
        for name in _DURABLE:
            if await self.admin.fetchval("SELECT current_setting($1)", name) != "on":
                raise BenchError(f"PostgreSQL runs with {name} off")

    @property
    def _secrets(self) -> Path:
        return self.directory / "stockade" / "secrets"

    def _environment_of(self, name: str, port: int) -> dict[str, str]:
        role = role_of(name.removesuffix("-service").replace("-", "_"))
        return {
            "STOCKADE_PORT": str(port),
            "STOCKADE_DATABASE_URL": "postgresql://" + self.server.url.partition("@")[2],
            "STOCKADE_DATABASE_USER": role,
            "STOCKADE_DATABASE_PASSWORD_FILE": str(self._secrets / f"role-{role}"),
            "STOCKADE_JWT_SECRET_FILE": str(self._secrets / "jwt-secret"),
            "STOCKADE_SERVICE_SECRET_FILE": str(self._secrets / "services" / name),
            "STOCKADE_SERVICE_SECRETS_DIRECTORY": str(self._secrets / "services"),
        }


@contextlib.asynccontextmanager
async def installed(directory: Path) -> AsyncGenerator[Installation]:
    """A durable PostgreSQL below a directory, with nothing in it yet."""
    server = await PostgresServer.start(directory / "database")
    try:
        admin: Any = await asyncpg.connect(server.url, command_timeout=_STATEMENT_TIMEOUT_S)
        try:
            installation = Installation(directory, server, admin)
            await installation.check_durable()
            yield installation
        finally:
            await admin.close(timeout=10)
    finally:
        await server.stop()


@contextlib.contextmanager
def throw_away_directory() -> Generator[Path]:
    """A directory that PostgreSQL's account may pass even when we are root; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="stockade-bench-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o711)
        yield Path(path)


async def _answering(process: Process, port: int) -> Running:
    api = Api(port)

    def is_ready() -> bool:
        process.check_alive()
        return api.is_ready()

    try:
        await wait_until(is_ready, limit_s=START_TIMEOUT_S)
    except TimeoutError:
        raise BenchError(
            f"{process.log.stem} is not ready after {START_TIMEOUT_S} s: {api.last_answer or 'no answer'}"
        ) from None
    return Running(process, api)


def _read_lags(exposition: str) -> Iterator[float]:
    for line in exposition.splitlines():
        if line.startswith(_LAG):
            yield float(line.rpartition(" ")[2])
