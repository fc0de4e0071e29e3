import asyncio
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from stockade.postgres import OWNER_ROLE, PostgresError, PostgresServer, bootstrap, role_of
from stockade.postgres.accounts import database_account
from stockade.postgres.binaries import Binaries
from stockade.postgres.bootstrap import quote_identifier
from stockade.postgres.cluster import ADMIN_ROLE, create_cluster
from stockade.postgres.logs import ServerLog
from stockade.postgres.postmaster import launch_postmaster, stop_postmaster
from stockade.postgres.settings import server_settings
from stockade.postgres.sockets import prepare_socket_directory
from tests.postgres.processes import eventually

pytestmark = pytest.mark.anyio

# Two of them are reserved words of SQL.
SCHEMAS = ("user", "order", "inventory")
ROLES = (OWNER_ROLE, *(role_of(schema) for schema in SCHEMAS))


@pytest.fixture
def database() -> str:
    """The name of a database that does not exist yet. The roles are the whole server's and shared by the tests."""
    return f"stock-{secrets.token_hex(4)}"


async def test_each_service_has_its_own_schema_and_nothing_else(server: PostgresServer, database: str) -> None:
    passwords = new_passwords()
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords)
    async with session(server, database, OWNER_ROLE, passwords) as owner:
        for schema in SCHEMAS:
            name = quote_identifier(schema)
            await owner.execute(f"CREATE TABLE {name}.things (id int)")
            await owner.execute(f"GRANT SELECT, INSERT ON {name}.things TO {role_of(schema)}")
            # Granted to everybody by mistake: the schema is a wall of its own.
            await owner.execute(f"GRANT ALL ON {name}.things TO PUBLIC")
    for schema in SCHEMAS:
        async with session(server, database, role_of(schema), passwords) as service:
            assert await service.fetchval("SELECT current_schemas(false)") == [schema]
            await service.execute("INSERT INTO things VALUES (1)")
            for other in set(SCHEMAS) - {schema}:
                await refused(service, f"SELECT FROM {quote_identifier(other)}.things")
            for forbidden in (
                "CREATE TABLE mine (id int)",
                "CREATE TABLE public.mine (id int)",
                "CREATE TEMPORARY TABLE mine (id int)",
                "CREATE SCHEMA mine",
                "CREATE ROLE mine",
                "CREATE DATABASE mine",
                "DROP TABLE things",
                f"SET ROLE {OWNER_ROLE}",
                f"SET ROLE {ADMIN_ROLE}",
                "SELECT rolpassword FROM pg_authid",
            ):
                await refused(service, forbidden)


async def test_a_role_without_a_grant_cannot_even_connect(server: PostgresServer, database: str) -> None:
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=new_passwords())
    async with admin(server.url) as connection:
        await connection.execute("DROP ROLE IF EXISTS stranger")
        await connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with session(server, database, "stranger", {"stranger": "stranger"}):
            pass


async def test_it_may_run_again_and_by_several_at_once(server: PostgresServer, database: str) -> None:
    passwords = new_passwords()
    await asyncio.gather(
        *(bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords) for _ in range(4))
    )
    before = await rights(server, database)
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords)
    assert await rights(server, database) == before
    assert before["database owner"] == OWNER_ROLE
    assert before["schema order"] == f"{OWNER_ROLE}: {OWNER_ROLE}=UC, {role_of('order')}=U"

    await bootstrap(server.url, database=database, schemas=(*SCHEMAS, "supplier"), passwords=new_passwords("supplier"))
    after = await rights(server, database)
    assert after["schema order"] == before["schema order"]
    assert "schema supplier" in after


async def test_wrong_grants_on_a_schema_are_taken_back(server: PostgresServer, database: str) -> None:
    passwords = new_passwords()
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords)
    before = await rights(server, database)
    async with admin(server.url_of(database)) as connection:
        await connection.execute(f'GRANT ALL ON SCHEMA "user" TO PUBLIC, {role_of("user")}, {role_of("order")}')
        await connection.execute("GRANT ALL ON SCHEMA public TO PUBLIC")
    assert await rights(server, database) != before
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords)
    assert await rights(server, database) == before


async def test_passwords_are_rotated_without_cutting_sessions(server: PostgresServer, database: str) -> None:
    old, new = new_passwords(), new_passwords()
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=old)
    async with session(server, database, role_of("user"), old) as open_session:
        await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=new)
        assert await open_session.fetchval("SELECT 1") == 1
    for role in ROLES:
        with pytest.raises(asyncpg.InvalidPasswordError):
            async with session(server, database, role, old):
                pass
        async with session(server, database, role, new) as connection:
            assert await connection.fetchval("SELECT current_user") == role


async def test_no_password_is_in_the_log_of_a_server_that_logs_every_statement(
    server: PostgresServer, database: str, module_base: Path
) -> None:
    passwords = new_passwords()
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords)
    log = (module_base / "data" / "postgres.log").read_text()
    assert f'ALTER ROLE "{OWNER_ROLE}"' in log or f'CREATE ROLE "{OWNER_ROLE}"' in log
    assert [password for password in passwords.values() if password in log] == []


async def test_an_administrator_who_is_no_superuser_is_enough(directory: Path, database: str) -> None:
    server = await PostgresServer.start(directory, durable=False)
    async with admin(server.url) as connection:
        await connection.execute("CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD 'dba'")
    url = url_as(server, "dba", "dba")
    passwords = new_passwords()
    await bootstrap(url, database=database, schemas=SCHEMAS, passwords=new_passwords())
    await bootstrap(url, database=database, schemas=SCHEMAS, passwords=passwords)
    async with session(server, database, OWNER_ROLE, passwords) as owner:
        await owner.execute('CREATE TABLE "order".things (id int)')
        await owner.execute("CREATE EXTENSION pg_trgm SCHEMA inventory")
    async with session(server, database, role_of("order"), passwords) as service:
        await refused(service, "SELECT FROM things")
    found = await rights(server, database)
    assert (found["database owner"], found["public may"]) == (OWNER_ROLE, "nothing")
    await server.stop()


async def test_a_database_that_is_there_already_is_closed_and_used(server: PostgresServer, database: str) -> None:
    async with admin(server.url) as connection:
        await connection.execute(f'CREATE DATABASE "{database}"')
    passwords = new_passwords()
    await bootstrap(server.url, database=database, schemas=SCHEMAS, passwords=passwords)
    found = await rights(server, database)
    assert found["database owner"] == ADMIN_ROLE
    assert found["public may"] == "nothing"
    async with session(server, database, OWNER_ROLE, passwords) as owner:
        await owner.execute("CREATE EXTENSION pg_trgm SCHEMA inventory")


async def test_what_is_missing_for_a_role_is_refused_in_one_line(server: PostgresServer, database: str) -> None:
    passwords = new_passwords()
    weak = dict(passwords, **{role_of("user"): "päss"})
    lacking = {role: password for role, password in passwords.items() if role != role_of("order")}
    assert "stockade_order needs a password" in await refusal(server.url, database, lacking)
    assert "stockade_user cannot be used: a password must be of printable ASCII" in await refusal(
        server.url, database, weak
    )


async def test_what_belongs_to_others_is_refused_in_one_line(server: PostgresServer, database: str) -> None:
    passwords = new_passwords()
    async with admin(server.url) as connection:
        await connection.execute("DROP ROLE IF EXISTS nothing, stockade_mighty")
        await connection.execute("CREATE ROLE nothing LOGIN PASSWORD 'nothing'")
        await connection.execute("CREATE ROLE stockade_mighty SUPERUSER")
        await connection.execute(f'CREATE DATABASE "{database}"')
    async with admin(server.url_of(database)) as connection:
        await connection.execute(f'CREATE SCHEMA "order" AUTHORIZATION {ADMIN_ROLE}')
    assert f"The schema order belongs to {ADMIN_ROLE}" in await refusal(server.url, database, passwords)
    assert "does not let this user prepare" in await refusal(url_as(server, "nothing", "nothing"), database, passwords)
    with pytest.raises(PostgresError, match="stockade_mighty exists with SUPERUSER"):
        await bootstrap(server.url, database=database, schemas=["mighty"], passwords=new_passwords("mighty"))


async def test_a_server_out_of_reach_is_refused_without_its_password(server: PostgresServer, database: str) -> None:
    passwords = new_passwords()
    wrong = await refusal(url_as(server, ADMIN_ROLE, "hidden"), database, passwords)
    assert "refuses the user or the password" in wrong
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        unreachable = await refusal(f"postgresql://me:hidden@127.0.0.1:{port}/postgres", database, passwords)
    assert f"PostgreSQL at 127.0.0.1:{port}/postgres cannot be reached" in unreachable
    unencoded = [
        await refusal(f"postgresql://me:hid{sign}den@127.0.0.1:1/postgres", database, passwords) for sign in "/?#"
    ]
    numeric = await refusal("postgresql://me:12/den@127.0.0.1:1/postgres", database, passwords)
    assert [said for said in (wrong, unreachable, *unencoded, numeric) if re.search("hid|den|12/", said)] == []


async def test_a_server_too_old_is_refused(base: Path, database: str) -> None:
    """A real one, where the machine has one."""
    old = [version for version in (15, 14) if Path(f"/usr/lib/postgresql/{version}/bin/postgres").exists()]
    if not old:
        pytest.skip("no PostgreSQL older than 16 on this machine")
    binaries = Binaries(Path(f"/usr/lib/postgresql/{old[0]}/bin"), old[0], "machine")
    account, log = database_account(), ServerLog(base)
    create_cluster(base, binaries, account, "secret", lambda _: None)
    sockets = prepare_socket_directory(base, account)
    wanted = server_settings(durable=False, socket_directory=sockets, wishes={})
    process = launch_postmaster(binaries, account, base / "postgres", wanted, log)
    try:
        await eventually(lambda: "ready to accept" in log.tail())
        url = f"postgresql://{ADMIN_ROLE}:secret@/postgres?host={sockets}"
        assert f"is version {old[0]}, and Stockade needs 16 or newer" in await refusal(url, database, new_passwords())
    finally:
        await stop_postmaster(process, fast_wait_s=10)


def test_names_are_quoted_and_never_cut_off() -> None:
    assert quote_identifier('a"b') == '"a""b"'
    for impossible in ("", "a\0b", "x" * 64, "ä" * 32):
        with pytest.raises(ValueError, match="cannot be the name"):
            quote_identifier(impossible)


@pytest.mark.skipif(shutil.which("psql") is None, reason="no psql on this machine")
async def test_libpq_reads_our_urls_as_well(server: PostgresServer) -> None:
    psql = ["psql", "--no-psqlrc", "-Atc", "SELECT current_user", server.url]
    said = await asyncio.to_thread(subprocess.check_output, psql, text=True, timeout=20)
    assert said == f"{ADMIN_ROLE}\n"


def new_passwords(*more: str) -> dict[str, str]:
    return {role: secrets.token_urlsafe(12) for role in (*ROLES, *map(role_of, more))}


def url_as(server: PostgresServer, role: str, password: str) -> str:
    return f"postgresql://{role}:{password}@/postgres?host={server.socket_directory}"


@asynccontextmanager
async def session(
    server: PostgresServer, database: str, role: str, passwords: Mapping[str, str]
) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        host=str(server.socket_directory), database=database, user=role, password=passwords[role]
    )
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def admin(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def refused(connection: asyncpg.Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)


async def refusal(url: str, database: str, passwords: Mapping[str, str], schemas: Sequence[str] = SCHEMAS) -> str:
    with pytest.raises(PostgresError) as caught:
        await bootstrap(url, database=database, schemas=schemas, passwords=passwords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def rights(server: PostgresServer, database: str) -> dict[str, str]:
    """Who owns and may do what, as text to compare."""
    async with admin(server.url_of(database)) as connection:
        found = {
            "database owner": await connection.fetchval(
                "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()"
            ),
            "database": await connection.fetchval(
                "SELECT datacl::text FROM pg_database WHERE datname = current_database()"
            ),
            "public may": await connection.fetchval(
                "SELECT CASE WHEN has_database_privilege('public', current_database(), 'CONNECT, TEMPORARY, CREATE') "
                "OR has_schema_privilege('public', 'public', 'USAGE, CREATE') THEN 'something' ELSE 'nothing' END"
            ),
            "roles": await connection.fetchval(
                "SELECT string_agg(concat_ws(' ', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, "
                "rolcanlogin, rolreplication, rolbypassrls), ', ' ORDER BY rolname) FROM pg_roles "
                "WHERE rolname = ANY ($1)",
                list(ROLES),
            ),
            "settings": await connection.fetchval(
                "SELECT string_agg(setrole::regrole::text || setconfig::text, ', ' ORDER BY 1) FROM pg_db_role_setting "
                "JOIN pg_database ON pg_database.oid = setdatabase WHERE datname = current_database()"
            ),
        }
        schemas = await connection.fetch(
            "SELECT nspname, nspowner::regrole::text || ': ' || (SELECT string_agg(grantee::regrole::text || '=' || kinds, "
            "', ' ORDER BY grantee) FROM (SELECT grantee, string_agg(left(privilege_type, 1), '' ORDER BY "
            "privilege_type DESC) AS kinds FROM aclexplode(nspacl) GROUP BY grantee) AS granted) AS rights "
            "FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
        )
        return found | {f"schema {row['nspname']}": row["rights"] for row in schemas}
