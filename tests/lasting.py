"""A database or a world that lasts for all tests of a module: for those that only look, or leave nothing behind."""

import contextlib
from collections.abc import AsyncGenerator

import asyncpg
import pytest

from stockade.local import without_credentials
from tests.conftest import PASSWORDS, ServerThread
from tests.world import World


@contextlib.asynccontextmanager
async def lasting_database(
    postgres: ServerThread, template: str, request: pytest.FixtureRequest
) -> AsyncGenerator[str]:
    """The address of a copy of the template, named after the module that asks."""
    name = f"{template}_{request.module.__name__.rpartition('.')[2]}"
    admin = await asyncpg.connect(postgres.server.url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        await admin.execute(f"GRANT CONNECT ON DATABASE {name} TO {', '.join(PASSWORDS)}")
        yield without_credentials(postgres.server.url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def lasting_world(postgres: ServerThread, template: str, request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    """All services on such a database."""
    async with (
        lasting_database(postgres, template, request) as url,
        World.open(url, PASSWORDS, admin_url=postgres.server.url) as opened,
    ):
        yield opened
