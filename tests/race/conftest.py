"""Worlds with as many database connections as a busy process has."""

from collections.abc import AsyncGenerator

import pytest

from tests.conftest import PASSWORDS, ServerThread
from tests.world import World


@pytest.fixture
def wide_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKADE_TEST_POOL", "16")


@pytest.fixture
async def busy(wide_pool: None, database_url: str, postgres: ServerThread) -> AsyncGenerator[World]:
    """A world whose services have sixteen connections each."""
    async with World.open(database_url, PASSWORDS, admin_url=postgres.server.url) as opened:
        yield opened


@pytest.fixture
async def twin(busy: World, postgres: ServerThread) -> AsyncGenerator[World]:
    """A second process's worth of the same product, on the same database."""
    async with World.open(busy.url, PASSWORDS, admin_url=postgres.server.url) as opened:
        yield opened
