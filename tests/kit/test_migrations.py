"""Migrations: each once and whole, whoever starts at the same time; and never on a schema that nobody understands."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from stockade.kit.database import connect
from stockade.kit.errors import ConfigurationError
from stockade.kit.migrations import Migration, apply_migrations, count_missing, find_missing, load_migrations
from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import SERVICES
from tests.conftest import PASSWORDS, ServerThread
from tests.kit.probe import SERVICE, make_context, make_settings, running
from tests.world import World

ROLE = role_of("user")


@pytest.fixture
async def owner(database_url: str, postgres: ServerThread) -> AsyncGenerator[Any]:
    """A connection as the owner, on a schema that is empty again."""
    admin = await asyncpg.connect(postgres.server.url_of(urlsplit(database_url).path.lstrip("/")))
    await admin.execute(f'DROP SCHEMA "user" CASCADE; CREATE SCHEMA "user" AUTHORIZATION {OWNER_ROLE}')
    await admin.execute(f'GRANT USAGE ON SCHEMA "user" TO {ROLE}')
    await admin.close()
    connection = await connect_as_owner(database_url)
    yield connection
    await connection.close()


async def connect_as_owner(url: str) -> Any:
    return await connect(url, user=OWNER_ROLE, password=PASSWORDS[OWNER_ROLE], application="test", schema="user")


async def list_tables(connection: Any) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'user'")
    return {row["tablename"] for row in rows}


def make(number: int, sql: str, *, series: str = "service") -> Migration:
    return Migration(series, number, f"{number:04d}_test", sql)


def kit_and(*own: Migration) -> list[Migration]:
    return [*(one for one in load_migrations("stockade.user") if one.series == "kit"), *own]


async def test_they_are_applied_once(owner: Any):
    migrations = load_migrations("stockade.user")
    assert await apply_migrations(owner, migrations, service_role=ROLE) == [one.name for one in migrations]
    before = await owner.fetch("SELECT * FROM applied_migrations")
    assert await apply_migrations(owner, migrations, service_role=ROLE) == []
    assert await owner.fetch("SELECT * FROM applied_migrations") == before
    assert await count_missing(owner, migrations) == 0


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_every_service_has_the_series_of_the_kit_and_its_own(service: Any):
    migrations = load_migrations(service.package)
    assert {one.series for one in migrations} == {"kit", "service"}
    assert next(one.number for one in migrations if one.series == "kit") == 1


async def test_four_that_start_at_once_apply_each_once(owner: Any, database_url: str):
    slow = kit_and(make(1, "CREATE TABLE one (id int); SELECT pg_sleep(0.2)"), make(2, "CREATE TABLE two (id int)"))
    connections = [await connect_as_owner(database_url) for _ in range(4)]
    applied = await asyncio.gather(*(apply_migrations(each, slow, service_role=ROLE) for each in connections))
    assert sorted(map(len, applied)) == [0, 0, 0, len(slow)]
    assert {"one", "two"} <= await list_tables(owner)
    for each in connections:
        await each.close()


async def test_one_that_waits_for_another_waits_longer_than_a_request_would(owner: Any, database_url: str):
    """A long migration elsewhere must not fail the start of every other process."""
    holder = await connect_as_owner(database_url)
    await owner.execute("SET lock_timeout = '100ms'")
    await owner.execute("SET statement_timeout = '200ms'")
    await holder.execute("SELECT pg_advisory_lock(hashtext('stockade.migrations.' || current_schema()))")
    waiting = asyncio.create_task(apply_migrations(owner, kit_and(), service_role=ROLE))
    await asyncio.sleep(0.6)
    assert not waiting.done(), waiting
    await holder.close()
    assert len(await waiting) == 1
    assert await owner.fetchval("SHOW lock_timeout") == "100ms"
    assert await owner.fetchval("SHOW statement_timeout") == "200ms"


async def test_a_failing_one_leaves_nothing_and_those_before_it_stay(owner: Any):
    good, bad = make(1, "CREATE TABLE good (id int)"), make(2, "CREATE TABLE bad (id int); SELECT 1 / 0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await apply_migrations(owner, kit_and(good, bad), service_role=ROLE)
    tables = await list_tables(owner)
    assert "good" in tables
    assert "bad" not in tables
    assert await apply_migrations(owner, kit_and(good, replace(bad, sql="SELECT 1")), service_role=ROLE) == [
        "0002_test"
    ]


async def test_the_lock_is_given_back_after_a_failure(owner: Any, database_url: str):
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await apply_migrations(owner, kit_and(make(1, "NONSENSE")), service_role=ROLE)
    other = await connect_as_owner(database_url)
    assert await asyncio.wait_for(apply_migrations(other, kit_and(), service_role=ROLE), 5) == []
    await other.close()


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(owner: Any):
    await apply_migrations(owner, kit_and(make(1, "SELECT 1")), service_role=ROLE)
    changed = kit_and(make(1, "SELECT 2"), make(2, "CREATE TABLE never (id int)"))
    with pytest.raises(ConfigurationError, match="0001_test was changed"):
        await apply_migrations(owner, changed, service_role=ROLE)
    with pytest.raises(ConfigurationError, match="was changed"):
        await count_missing(owner, changed)
    assert "never" not in await list_tables(owner)


async def test_a_database_that_is_newer_than_the_program_is_refused(owner: Any):
    await apply_migrations(owner, kit_and(make(1, "SELECT 1"), make(2, "SELECT 2")), service_role=ROLE)
    with pytest.raises(ConfigurationError, match="newer than this program: it has service migration 0002"):
        await apply_migrations(owner, kit_and(make(1, "SELECT 1")), service_role=ROLE)


def test_what_is_missing_in_the_middle_is_found():
    first, second, third = (make(number, f"SELECT {number}") for number in (1, 2, 3))
    applied = [("service", one.number, one.checksum) for one in (first, third)]
    assert find_missing([first, second, third], applied) == [second]


async def test_the_role_of_the_service_gets_what_is_granted_and_cannot_change_the_record(owner: Any, database_url: str):
    table = make(1, "CREATE TABLE shared (id int); GRANT SELECT ON shared TO :service_role")
    await apply_migrations(owner, kit_and(table), service_role=ROLE)
    service = await connect(database_url, user=ROLE, password=PASSWORDS[ROLE], application="test", schema="user")
    assert await service.fetch("SELECT * FROM shared") == []
    assert len(await service.fetch("SELECT * FROM applied_migrations")) == 2
    for forbidden in ("INSERT INTO shared VALUES (1)", "DELETE FROM applied_migrations", "CREATE TABLE mine (id int)"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(forbidden)
    await service.close()


def make_package(folder: Path, name: str, *files: str) -> str:
    package = folder / name
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for file in files:
        (package / "migrations" / file).write_text("SELECT 1;")
    return name


@pytest.mark.parametrize("files", [("0002_b.sql",), ("0001_a.sql", "0003_c.sql"), ("0001_a.sql", "0001_b.sql")])
def test_numbers_with_a_gap_or_twice_are_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = make_package(tmp_path, f"package_{abs(hash(files))}", *files)
    with pytest.raises(AssertionError, match="gaps"):
        load_migrations(name)


def test_other_files_in_the_directory_are_not_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = make_package(tmp_path, "package_of_others", "0001_a.sql", "README.md", "0002_b.sql.orig", "x0002_b.sql")
    assert [one.name for one in load_migrations(name) if one.series == "service"] == ["0001_a"]


async def test_a_service_is_not_ready_while_migrations_are_missing_or_too_new(database_url: str):
    connection = await connect_as_owner(database_url)
    context = make_context(make_settings(database_url, PASSWORDS))
    async with running(context) as probe:
        assert (await probe.http.get("/health/ready")).status_code == 200
        kept = await connection.fetchrow("DELETE FROM applied_migrations WHERE series = 'service' RETURNING *")
        missing = await probe.http.get("/health/ready")
        assert (missing.status_code, missing.json()["reason"]) == (
            503,
            "1 migrations are missing: run `stockade migrate`",
        )
        await connection.execute("INSERT INTO applied_migrations SELECT ($1::applied_migrations).*", kept)
        await connection.execute("INSERT INTO applied_migrations VALUES ('service', 99, '0099_new', 'x')")
        newer = await probe.http.get("/health/ready")
        assert newer.status_code == 503
        assert "newer than this program" in newer.json()["reason"]
    await connection.close()
    assert SERVICE.package == "stockade.user"


async def test_the_schemas_of_the_services_are_closed_to_each_other(world: World):
    for service in SERVICES:
        connection = await world.connect(service.schema)
        try:
            for other in SERVICES:
                if other is not service:
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.fetch(f'SELECT * FROM "{other.schema}".outbox')
        finally:
            await connection.close()
