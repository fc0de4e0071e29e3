import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from stockade.postgres import PostgresError, PostgresServer
from tests.postgres.processes import StartWriter, eventually

pytestmark = pytest.mark.anyio
by_kernel = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")


@by_kernel
async def test_the_server_of_a_killed_stockade_goes_by_itself_and_keeps_every_row(
    directory: Path, start_writer: StartWriter
) -> None:
    writer = start_writer(directory)
    pid = wait_for_rows(writer)
    acknowledged = kill(writer)
    await eventually(lambda: not is_running(pid))
    assert not (directory / "postgres" / "postmaster.pid").exists()
    assert await count_after_start(directory) >= acknowledged


async def test_a_start_right_after_the_kill_waits_for_the_old_server(
    directory: Path, start_writer: StartWriter
) -> None:
    writer = start_writer(directory)
    pid = wait_for_rows(writer)
    os.kill(pid, signal.SIGSTOP)
    acknowledged = kill(writer)
    counting = asyncio.create_task(count_after_start(directory))
    finished, _ = await asyncio.wait([counting], timeout=1)
    os.kill(pid, signal.SIGCONT)
    assert not finished
    assert await counting >= acknowledged


async def test_both_killed_at_once_lose_no_acknowledged_row(directory: Path, start_writer: StartWriter) -> None:
    writer = start_writer(directory)
    pid = wait_for_rows(writer)
    # Stopped first, so that it can neither notice nor acknowledge anything in between.
    writer.send_signal(signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    acknowledged = kill(writer)
    assert await count_after_start(directory) >= acknowledged


async def test_the_directory_of_a_running_stockade_is_refused_to_another(
    directory: Path, start_writer: StartWriter
) -> None:
    writer = start_writer(directory)
    wait_for_rows(writer)
    with pytest.raises(PostgresError, match=rf"in use by another stockade \(process {writer.pid}\); stop it or"):
        await PostgresServer.start(directory)
    assert writer.poll() is None


@by_kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone switches to another account")
async def test_the_groups_of_root_are_not_handed_to_the_server(directory: Path, start_writer: StartWriter) -> None:
    pid = wait_for_rows(start_writer(directory, groups=[1, 4]))
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Groups:\t \n" in status


def wait_for_rows(writer: subprocess.Popen[str]) -> int:
    """Returns the server's process id after a hundred rows are committed."""
    assert writer.stdout
    first = writer.stdout.readline()
    for line in writer.stdout:
        if line.strip() == "100":
            return int(first)
    raise AssertionError(f"the writer ended early: {first}")


def kill(writer: subprocess.Popen[str]) -> int:
    """Kill -9; returns the last number that was acknowledged before."""
    writer.kill()
    said, _ = writer.communicate()
    complete = said[: said.rfind("\n") + 1].split()
    return int(complete[-1]) if complete else 100


def is_running(pid: int) -> bool:
    try:
        # A dead child whose new parent has not collected it yet is not running.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def count_after_start(directory: Path) -> int:
    """The rows there are; their numbers must be without a gap."""
    server = await PostgresServer.start(directory)
    connection = await asyncpg.connect(server.url)
    row = await connection.fetchrow("SELECT count(*) AS rows, max(number) AS last FROM rows")
    await connection.close()
    await server.stop()
    assert row
    assert row["rows"] == row["last"]
    return row["rows"]
