"""Worlds with as many database connections as a busy process has."""

from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.conftest import PASSWORDS, ServerThread
from tests.world import World


@pytest.fixture
def wide_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKADE_TEST_POOL", "16")


@pytest.fixture
async def busy(wide_pool: None, database_url: str, postgres: ServerThread) -> AsyncGenerator[World]:
    """A world whose services have sixteen connections each, and whose deadlocks, if any, are noticed without delay."""
    admin = await asyncpg.connect(postgres.server.url)
    name = urlsplit(database_url).path.lstrip("/")
    await admin.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '100ms'")
    await admin.close()
    async with World.open(database_url, PASSWORDS, admin_url=postgres.server.url) as opened:
        yield opened


@pytest.fixture
async def twin(busy: World, postgres: ServerThread) -> AsyncGenerator[World]:
    """A second process's worth of the same product, on the same database."""
    async with World.open(busy.url, PASSWORDS, admin_url=postgres.server.url) as opened:
        yield opened
