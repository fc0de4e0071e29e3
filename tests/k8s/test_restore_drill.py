"""The restore drill: the scripts of the cluster lose a database on purpose and bring it back to a moment, row by row."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s.database_pod import DatabasePod, ScriptError
from tests.k8s.database_programs import Programs, find_programs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter, which pytest's own is not for root."""
    path = Path(tempfile.mkdtemp(prefix="stockade-drill-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def programs(base: Path) -> Programs:
    return find_programs(base)


@pytest.fixture
def pod(base: Path, programs: Programs) -> Iterator[DatabasePod]:
    """A running server on new volumes."""
    root = Path(tempfile.mkdtemp(dir=base))
    pod = DatabasePod.create(root, programs)
    try:
        pod.initialize()
        pod.start()
        pod.sql("CREATE TABLE drill (id bigint PRIMARY KEY, note text NOT NULL)")
        yield pod
    finally:
        pod.kill()
        shutil.rmtree(root, ignore_errors=True)


def test_a_destroyed_database_comes_back_to_a_moment_row_by_row(pod: DatabasePod) -> None:
    _write(pod, 1, 5_000)
    pod.backup()
    _write(pod, 5_001, 8_000)
    expected = _digest(pod)
    moment = _now(pod)
    _write(pod, 8_001, 9_000)
    pod.sql("DELETE FROM drill WHERE id <= 4000")
    # Past the moment the archive has to know at least one commit, so that recovery can tell that it is there.
    _archive(pod)

    pod.kill()
    shutil.rmtree(pod.root / "data" / "18")
    began_s = time.monotonic()
    said = pod.restore(moment)
    pod.start()
    took_s = time.monotonic() - began_s

    assert _digest(pod) == expected
    assert _ids(pod) == list(range(1, 8_001))
    print(f"\nrestore drill: 8000 rows back as of {moment} in {took_s:.1f} s\n{said}")
    assert took_s < 60


def test_a_lost_server_loses_no_acknowledged_row_while_its_volume_survives(pod: DatabasePod) -> None:
    pod.backup()
    acknowledged = _write_until_killed(pod, seconds=2)
    pod.restore("latest")
    pod.start()

    found = set(_ids(pod))
    # The row that was on its way when the server died may be there as well.
    assert acknowledged <= found <= acknowledged | {max(acknowledged) + 1}
    assert len(acknowledged) > 20


def test_without_the_volume_everything_that_was_archived_comes_back(pod: DatabasePod) -> None:
    pod.backup()
    _write(pod, 1, 100)
    _archive(pod)
    _write(pod, 101, 120)
    pod.kill()
    shutil.rmtree(pod.root / "data" / "18")
    pod.restore("latest")
    pod.start()

    assert _ids(pod) == list(range(1, 101))


def test_history_goes_on_after_a_restore_and_can_be_restored_again(pod: DatabasePod) -> None:
    _write(pod, 1, 10)
    pod.backup()
    moment = _now(pod)
    _write(pod, 11, 20)
    _archive(pod)
    pod.stop()
    pod.restore(moment)
    pod.start()
    _write(pod, 101, 110)
    _archive(pod)
    pod.kill()
    shutil.rmtree(pod.root / "data" / "18")
    pod.restore("latest")
    pod.start()

    assert _ids(pod) == [*range(1, 11), *range(101, 111)]


def test_removing_old_backups_keeps_what_the_oldest_kept_one_needs(pod: DatabasePod) -> None:
    pod.backup()
    (first,) = _backups(pod)
    _write(pod, 1, 10)
    _archive(pod)
    before = _segments(pod)
    pod.backup(kept=1)
    (second,) = _backups(pod)
    assert second > first
    assert not before & _segments(pod), "the WAL of the removed backup takes room for nothing"
    _write(pod, 11, 20)
    pod.stop()
    pod.restore("latest")
    pod.start()

    assert _ids(pod) == list(range(1, 21))


def test_a_failed_restore_leaves_the_present_cluster_as_it_is(pod: DatabasePod) -> None:
    _write(pod, 1, 10)
    pod.backup()
    _write(pod, 11, 20)
    later = pod.sql("SELECT now() + interval '1 hour'")
    pod.stop()
    with pytest.raises(ScriptError, match="recovery ended before configured recovery target was reached"):
        pod.restore(later)
    with pytest.raises(ScriptError, match="no base backup had ended by"):
        pod.restore("2001-01-01 00:00:00+00")
    with pytest.raises(ScriptError, match="needs its zone"):
        pod.restore("2026-11-24 09:30:00")
    with pytest.raises(ScriptError, match="not a moment"):
        pod.restore("yesterday in the evening+00")
    pod.start()

    assert _ids(pod) == list(range(1, 21))


def test_it_refuses_a_damaged_base_backup(pod: DatabasePod) -> None:
    _write(pod, 1, 10)
    pod.backup()
    (name,) = _backups(pod)
    victim = max((pod.archive / "base" / name / "base").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    pod.stop()
    with pytest.raises(ScriptError, match=f"base backup {name} is damaged"):
        pod.restore("latest")


def test_it_refuses_damaged_wal_instead_of_ending_the_history_there(pod: DatabasePod) -> None:
    pod.backup()
    _write(pod, 1, 10)
    _archive(pod)
    pod.kill()
    shutil.rmtree(pod.root / "data" / "18")
    victim = max((pod.archive / "wal").glob("*.gz"), key=lambda path: path.name.split(".")[0])
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(ScriptError, match="PostgreSQL gave up"):
        pod.restore("latest")


def test_an_empty_volume_beside_a_full_archive_is_not_a_new_database(pod: DatabasePod) -> None:
    pod.backup()
    pod.kill()
    shutil.rmtree(pod.root / "data" / "18")
    with pytest.raises(ScriptError, match="the data volume is empty but the archive is not"):
        pod.initialize()
    assert not pod.data.exists()


def test_a_second_start_changes_nothing(pod: DatabasePod) -> None:
    _write(pod, 1, 10)
    pod.stop()
    pod.data.chmod(0o770)
    assert "nothing to do" in pod.initialize()
    pod.start()

    assert _ids(pod) == list(range(1, 11))


def test_the_archive_never_replaces_a_file(pod: DatabasePod) -> None:
    segment = pod.root / "segment"
    segment.write_bytes(b"one history")
    segment.chmod(0o644)
    pod.run("archive.sh", str(segment), "000000090000000000000001")
    pod.run("archive.sh", str(segment), "000000090000000000000001")
    segment.write_bytes(b"another one")
    with pytest.raises(ScriptError, match="exists and differs"):
        pod.run("archive.sh", str(segment), "000000090000000000000001")


def test_a_backup_without_its_wal_in_the_archive_is_a_failure(pod: DatabasePod) -> None:
    pod.backup()
    kept = _backups(pod)
    pod.sql("ALTER SYSTEM SET archive_command = '/bin/false'")
    pod.sql("SELECT pg_reload_conf()")
    with pytest.raises(ScriptError, match="is not in the archive"):
        pod.run(
            "backup.sh",
            BACKUPS_KEPT="1",
            ARCHIVE_WAIT_S="2",
            PGHOST=str(pod.root / "sockets"),
            PGUSER="stockade_backup",
        )
    assert set(kept) <= set(_backups(pod)), "nothing may be removed before the new one is good"


def _write(pod: DatabasePod, first: int, last: int) -> None:
    pod.sql(f"INSERT INTO drill SELECT n, md5(n::text) FROM generate_series({first}, {last}) AS n")


def _write_until_killed(pod: DatabasePod, *, seconds: int) -> set[int]:
    """Rows that were acknowledged one by one until the server was killed under the writer."""
    acknowledged: set[int] = set()

    def write() -> None:
        number = 0
        while True:
            number += 1
            try:
                _write(pod, number, number)
            except ScriptError:
                return
            acknowledged.add(number)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(seconds)
    pod.kill()
    writer.join(timeout=30)
    return acknowledged


def _now(pod: DatabasePod) -> str:
    return pod.sql("SELECT clock_timestamp()")


def _archive(pod: DatabasePod) -> None:
    """Close the present segment and wait until it is archived; the server does the first by itself each minute."""
    name = pod.sql("SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 30
    while not (pod.archive / "wal" / f"{name}.gz").exists():
        assert time.monotonic() < deadline, f"{name} was not archived"
        time.sleep(0.1)


def _ids(pod: DatabasePod) -> list[int]:
    return [int(line) for line in pod.sql("SELECT id FROM drill ORDER BY id").split()]


def _digest(pod: DatabasePod) -> str:
    return pod.sql("SELECT count(*) || ' ' || md5(string_agg(id || note, ',' ORDER BY id)) FROM drill")


def _backups(pod: DatabasePod) -> list[str]:
    return sorted(path.name for path in (pod.archive / "base").iterdir() if not path.name.startswith("."))


def _segments(pod: DatabasePod) -> set[str]:
    return {path.name for path in (pod.archive / "wal").glob("*.gz") if len(path.name) == 27}
