import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from stockade.postgres import PostgresError, PostgresServer
from stockade.postgres.accounts import database_account
from stockade.postgres.logs import LOG_BYTES_MAX
from stockade.postgres.sockets import PATH_BYTES_MAX
from tests.postgres.processes import eventually, pid_of

pytestmark = pytest.mark.anyio


async def test_it_starts_from_nothing_and_restarts_with_every_row(directory: Path) -> None:
    told: list[str] = []
    server = await PostgresServer.start(directory, say=told.append)
    await execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    await server.stop()
    assert len(told) == 1
    assert str(directory / "postgres") in told[0]

    server = await PostgresServer.start(directory, say=told.append)
    assert await fetch(server, "SELECT answer FROM kept") == 42
    await server.stop()
    assert len(told) == 1
    assert (directory / "postgres.log.1").is_file()


async def test_it_promises_what_the_design_asks_for(directory: Path) -> None:
    server = await PostgresServer.start(directory)
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "password_encryption": "scram-sha-256",
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
    }
    assert {name: await fetch(server, f"SHOW {name}") for name in expected} == expected
    # Byte order, whatever the machine speaks, and yet letters outside ASCII are letters.
    assert await fetch(server, "SELECT 'Z' < 'a' AND 'z' < 'ä'")
    assert await fetch(server, "SELECT lower('GRÖSSE')") == "grösse"
    await execute(server, "CREATE EXTENSION pg_trgm")
    assert await fetch(server, "SELECT similarity('öäü', 'öäü')") == 1
    await server.stop()


async def test_nothing_is_trusted_and_nothing_listens_on_tcp(server: PostgresServer, module_base: Path) -> None:
    data = module_base / "data" / "postgres"
    rules = [line.split() for line in (data / "pg_hba.conf").read_text().splitlines() if line and line[0] != "#"]
    assert rules
    assert {rule[-1] for rule in rules} == {"scram-sha-256"}
    assert "trust" not in await fetch(server, "SELECT string_agg(auth_method, ' ') FROM pg_hba_file_rules")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(
            user="stockade_admin", password="guessed", database="postgres", host=str(server.socket_directory)
        )
    if sys.platform == "linux":
        assert tcp_sockets_of(pid_of(server)) == []


async def test_only_the_database_account_enters_its_directories_and_only_we_read_the_password(
    server: PostgresServer, module_base: Path
) -> None:
    account, data = database_account(), module_base / "data"
    for path in (server.socket_directory, data / "postgres"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert path.stat().st_uid == account.uid
    secret = data / "secrets" / "postgres-admin"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.stat().st_uid == os.geteuid()
    assert quote(secret.read_text().strip()) in server.url
    assert sorted(path.name for path in data.iterdir()) == [
        *("postgres", "postgres.log", "run", "secrets", "stockade.lock"),
    ]


async def test_a_path_too_long_for_a_socket_gets_one_elsewhere_and_keeps_it(base: Path) -> None:
    directory = base / ("long" * (PATH_BYTES_MAX // 4))
    server = await PostgresServer.start(directory, durable=False)
    elsewhere = server.socket_directory
    assert directory not in elsewhere.parents
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    assert await fetch(server, "SELECT 1") == 1
    await server.stop()

    server = await PostgresServer.start(directory, durable=False)
    assert server.socket_directory == elsewhere
    await server.stop()
    elsewhere.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_the_server_has_no_rights_beyond_its_account(server: PostgresServer) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid_of(server)}/status").read_text().splitlines())
    account = database_account()
    assert status["Uid"].split() == [str(account.uid)] * 4
    assert status["Gid"].split() == [str(account.gid)] * 4
    assert int(status["CapEff"], 16) == 0


async def test_variables_of_the_environment_neither_mislead_nor_reach_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKADE_ADMIN_PASSWORD", "secret")
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGOPTIONS": "-c fsync=off", "LC_ALL": "nonsense"}.items():
        monkeypatch.setenv(name, value)
    server = await PostgresServer.start(directory)
    monkeypatch.delenv("PGOPTIONS")
    assert await fetch(server, "SHOW fsync") == "on"
    if sys.platform == "linux":
        seen = Path(f"/proc/{pid_of(server)}/environ").read_text().split("\0")
        assert {variable.partition("=")[0] for variable in seen} <= {"PATH", "LC_ALL", "LD_LIBRARY_PATH", "PGDATA", ""}
        assert "PGDATA=/nowhere" not in seen
    await server.stop()


async def test_settings_are_added_but_never_against_a_promise(directory: Path) -> None:
    with pytest.raises(ValueError, match="fsync"):
        await PostgresServer.start(directory, settings={"FSYNC": "off"})
    server = await PostgresServer.start(directory, durable=False, settings={"max_connections": "17"})
    assert await fetch(server, "SHOW max_connections") == "17"
    assert await fetch(server, "SHOW fsync") == "off"
    await server.stop()


async def test_a_killed_server_is_started_again_with_what_it_had_committed(directory: Path) -> None:
    told: list[str] = []
    server = await PostgresServer.start(directory, say=told.append)
    await execute(server, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
    async with watched(server):
        first = pid_of(server)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: any("runs again" in line for line in told))
        assert server.process_id != first
        assert await fetch(server, "SELECT count(*) FROM kept") == 1000
    assert any("SIGKILL" in line for line in told)


async def test_a_server_that_cannot_run_is_given_up_with_its_own_reason(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    (directory / "postgres" / "global" / "pg_control").unlink()
    os.kill(pid_of(server), signal.SIGKILL)
    with pytest.raises(PostgresError, match=r"failed 5 times.*pg_control"):
        await asyncio.wait_for(server.watch(), 30)
    await server.stop()


async def test_stopping_ends_the_watch_and_the_server(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    pid = pid_of(server)
    async with watched(server):
        pass
    assert server.process_id is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await server.stop()


async def test_the_log_of_a_running_server_stays_bounded(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    log = directory / "postgres.log"
    async with watched(server):
        with log.open("ab") as file:
            file.write(b"." * (LOG_BYTES_MAX + 1))
        await eventually(lambda: log.stat().st_size < LOG_BYTES_MAX)
        await execute(server, "DO $$ BEGIN RAISE WARNING 'after'; END $$")
        assert "after" in log.read_text()
        assert (directory / "postgres.log.1").stat().st_size > LOG_BYTES_MAX


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")
async def test_a_stale_pid_that_another_program_has_now_does_not_keep_it_from_starting(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    note = (directory / "postgres" / "postmaster.pid").read_text().splitlines()
    await server.stop()

    account = database_account()
    with subprocess.Popen(["sleep", "60"], user=account.switch_uid, group=account.switch_gid) as other:
        try:
            pid_file = directory / "postgres" / "postmaster.pid"
            pid_file.write_text("\n".join([str(other.pid), *note[1:]]) + "\n")
            account.own(pid_file)
            server = await PostgresServer.start(directory, durable=False)
            await server.stop()
            assert other.poll() is None
        finally:
            other.kill()


@asynccontextmanager
async def watched(server: PostgresServer) -> AsyncGenerator[None]:
    watching = asyncio.create_task(server.watch())
    try:
        yield
    finally:
        await server.stop()
    await asyncio.wait_for(watching, 10)


async def execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute(statement)
    await connection.close()


async def fetch(server: PostgresServer, query: str):
    connection = await asyncpg.connect(server.url)
    value = await connection.fetchval(query)
    await connection.close()
    return value


def tcp_sockets_of(pid: int) -> list[str]:
    open_files = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    return [line for table in tables for line in table if f"socket:[{line.split()[9]}]" in open_files]
