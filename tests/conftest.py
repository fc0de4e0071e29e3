"""One real PostgreSQL a test worker, one migrated template database, and a fresh copy of it for every test."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from stockade.kit.logs import start_logging
from stockade.local import without_credentials
from stockade.postgres import OWNER_ROLE, PostgresServer, bootstrap, role_of
from stockade.targets import SCHEMAS, SERVICES, migrate
from tests.world import World

T = TypeVar("T")
PASSWORDS = {role: f"{role}-of-the-tests" for role in (OWNER_ROLE, *map(role_of, SCHEMAS))}


start_logging()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class ServerThread:
    """A PostgreSQL that outlives the event loops of single tests: it lives on a loop of its own in a thread."""

    def __init__(self, directory: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self.call(lambda: PostgresServer.start(directory, durable=False))

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=90)

    def stop(self) -> None:
        self.call(self.server.stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)


@contextlib.contextmanager
def started_server() -> Generator[ServerThread]:
    directory = Path(tempfile.mkdtemp(prefix="stockade-tests-"))
    directory.chmod(0o711)
    thread = ServerThread(directory)
    try:
        yield thread
    finally:
        thread.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Generator[ServerThread]:
    """The server of this worker's tests. Its roles are everybody's: who changes one of them needs `bare_postgres`."""
    with started_server() as thread:
        yield thread


@pytest.fixture(scope="module")
def bare_postgres() -> Generator[ServerThread]:
    """A server for whoever bootstraps: roles and their passwords belong to the whole server."""
    with started_server() as thread:
        yield thread


@pytest.fixture(scope="session")
def template(postgres: ServerThread) -> str:
    """The name of a database in which every migration was applied by the owner role, as in production."""
    name = f"template_{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}"

    async def prepare() -> None:
        await bootstrap(postgres.server.url, database=name, schemas=SCHEMAS, passwords=PASSWORDS)
        url = without_credentials(postgres.server.url, name)
        await migrate(SERVICES, url=url, user=OWNER_ROLE, password=PASSWORDS[OWNER_ROLE], role_of=role_of)

    postgres.call(prepare)
    return name


_count = [0]


@pytest.fixture
async def database_url(postgres: ServerThread, template: str) -> AsyncGenerator[str]:
    """The address, without credentials, of a fresh copy of the template."""
    _count[0] += 1
    name = f"{template.replace('template', 'test')}_{_count[0]}"
    admin: Any = await asyncpg.connect(postgres.server.url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        await admin.execute(f"GRANT CONNECT ON DATABASE {name} TO {', '.join(PASSWORDS)}")
        await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        yield without_credentials(postgres.server.url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def world(database_url: str, postgres: ServerThread) -> AsyncGenerator[World]:
    """All services in this process behind the front, on a database of their own."""
    async with World.open(database_url, PASSWORDS, admin_url=postgres.server.url) as opened:
        yield opened
