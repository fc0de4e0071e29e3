"""The probe for the tests of the kit: one for every module, since most of them only ask."""

from collections.abc import AsyncGenerator

import pytest

from tests.conftest import PASSWORDS, ServerThread
from tests.kit.probe import Running, Served, make_context, make_settings, running, served
from tests.lasting import lasting_database


@pytest.fixture(scope="module")
async def module_database_url(
    postgres: ServerThread, template: str, request: pytest.FixtureRequest
) -> AsyncGenerator[str]:
    """The address of a database for the tests of one module."""
    async with lasting_database(postgres, template, request) as url:
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
