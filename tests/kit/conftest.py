"""The probe for the tests of the kit: one for every module, since most of them only ask."""

import contextlib
from collections.abc import AsyncGenerator

import asyncpg
import pytest

from stockade.local import without_credentials
from tests.conftest import PASSWORDS, ServerThread
from tests.kit.probe import Running, Served, make_context, make_settings, running, served


@contextlib.asynccontextmanager
async def a_database(postgres: ServerThread, template: str, name: str) -> AsyncGenerator[str]:
    """A copy of the template that lives longer than one test."""
    admin = await asyncpg.connect(postgres.server.url)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        await admin.execute(f"GRANT CONNECT ON DATABASE {name} TO {', '.join(PASSWORDS)}")
        yield without_credentials(postgres.server.url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture(scope="module")
async def module_database_url(
    postgres: ServerThread, template: str, request: pytest.FixtureRequest
) -> AsyncGenerator[str]:
    """The address of a database for the tests of one module."""
    module = request.module.__name__.rpartition(".")[2]
    async with a_database(postgres, template, f"{template}_{module}") as url:
        yield url


@pytest.fixture(scope="module")
async def probe(module_database_url: str) -> AsyncGenerator[Running]:
    """The probe in this process."""
    async with running(make_context(make_settings(module_database_url, PASSWORDS, database_pool_size=20))) as opened:
        yield opened


@pytest.fixture
async def served_probe(module_database_url: str) -> AsyncGenerator[Served]:
    """The probe on a port of its own."""
    async with served(make_context(make_settings(module_database_url, PASSWORDS))) as opened:
        yield opened
