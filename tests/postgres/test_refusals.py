import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stockade.postgres import PostgresError, PostgresServer
from stockade.postgres.accounts import database_account
from tests.postgres.processes import StartWriter, find_python_for

pytestmark = pytest.mark.anyio
for_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


async def refusal(directory: Path) -> str:
    """The line with which a start is refused, after which the directory must be free again."""
    with pytest.raises(PostgresError):
        await PostgresServer.start(directory)
    with pytest.raises(PostgresError) as caught:
        await PostgresServer.start(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_second_holder_is_refused(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    assert f"{directory} is in use by another stockade (process {os.getpid()})" in await refusal(directory)
    await server.stop()


async def test_a_directory_with_other_things_in_it_is_left_alone(directory: Path) -> None:
    (directory / "postgres").mkdir(parents=True)
    directory.chmod(0o711)
    note = directory / "postgres" / "holiday.jpg"
    note.write_text("precious")
    shutil.chown(directory / "postgres", database_account().name)
    assert f"{directory}/postgres is not empty and holds no PostgreSQL cluster" in await refusal(directory)
    assert note.read_text() == "precious"


async def test_a_cluster_of_another_major_version_is_named(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    await server.stop()
    (directory / "postgres" / "PG_VERSION").write_text("12\n")
    said = await refusal(directory)
    assert f"{directory}/postgres is of PostgreSQL 12. PostgreSQL 12 is needed and was not found" in said
    assert "postgresql-12" in said


async def test_a_cluster_whose_password_is_lost_or_wrong_is_named(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    await server.stop()
    secret = directory / "secrets" / "postgres-admin"
    secret.write_text("another\n")
    assert f"refuses the password of stockade_admin in {directory}/secrets" in await refusal(directory)
    secret.unlink()
    assert f"{secret} is missing" in await refusal(directory)


async def test_a_leftover_of_an_interrupted_creation_is_cleared(directory: Path) -> None:
    leftover = directory / "postgres.new-dead" / "data"
    leftover.mkdir(parents=True)
    directory.chmod(0o711)
    (leftover / "PG_VERSION").write_text("18\n")
    server = await PostgresServer.start(directory, durable=False)
    await server.stop()
    assert not leftover.parent.exists()


@for_root
async def test_a_cluster_of_another_owner_is_named(directory: Path) -> None:
    server = await PostgresServer.start(directory, durable=False)
    await server.stop()
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in {0, database_account().uid})
    os.chown(directory / "postgres", other.pw_uid, -1)
    said = await refusal(directory)
    assert f"{directory}/postgres belongs to {other.pw_name}" in said
    assert f"chown -R {database_account().name} {directory}/postgres" in said


@for_root
async def test_a_closed_directory_on_the_way_is_named(base: Path) -> None:
    closed = base / "private"
    closed.mkdir(mode=0o700)
    said = await refusal(closed / "deep" / "data")
    assert f"{database_account().name}, who may not enter {closed} on the way" in said
    assert "--data" in said
    assert closed.stat().st_mode & 0o777 == 0o700


@for_root
async def test_links_in_the_data_directory_do_not_lead_root_astray(base: Path, directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o711)
    (base / "elsewhere").mkdir()
    (directory / "run").symlink_to(base / "elsewhere")
    assert f"{directory}/run is a symbolic link" in await refusal(directory)
    assert (base / "elsewhere").stat().st_uid == 0


@for_root
async def test_an_ordinary_user_runs_it_as_itself(base: Path, start_writer: StartWriter) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    python = find_python_for(nobody)
    home = base / "home"
    home.mkdir()
    os.chown(home, nobody, nobody)
    writer = start_writer(home / "data", "--once", python=python, uid=nobody)
    said, _ = writer.communicate(timeout=30)
    assert writer.returncode == 0, said
    assert said.split()[1] == "1"
    owners = {path.stat().st_uid for path in (home / "data").rglob("*")}
    assert owners == {nobody}


@for_root
async def test_an_ordinary_user_is_told_that_a_directory_is_not_writable(
    directory: Path, start_writer: StartWriter
) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    python = find_python_for(nobody)
    directory.mkdir()
    said, _ = start_writer(directory, "--once", python=python, uid=nobody).communicate(timeout=30)
    assert said == f"{directory} is not writable by nobody: change its owner or choose another --data.\n"


@for_root
@pytest.mark.parametrize("small_disk", ["64m"], indirect=True)
async def test_a_disk_too_small_for_a_cluster_is_refused_before_anything_is_made(small_disk: Path) -> None:
    assert f"{small_disk} has 6" in (said := await refusal(small_disk))
    assert "MB free and a new cluster needs 200 MB" in said
    assert not (small_disk / "postgres").exists()


@for_root
@pytest.mark.parametrize("small_disk", ["300m"], indirect=True)
async def test_a_full_disk_is_said_in_one_line_and_room_heals_it(small_disk: Path) -> None:
    server = await PostgresServer.start(small_disk)
    await server.stop()
    filler = small_disk / "filler"
    fill(filler)
    assert await refusal(small_disk) == (
        f"The disk that holds {small_disk} is full: free some space there or choose another --data."
    )
    filler.unlink()
    server = await PostgresServer.start(small_disk)
    await server.stop()


@pytest.fixture
def small_disk(base: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    disk = base / "disk"
    disk.mkdir()
    options = f"size={request.param},mode=0711"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this root may not mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError:
            return
