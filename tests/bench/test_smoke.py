"""One tiny run of the real thing: its servers, its reference, its table, its record, and nothing left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, env=os.environ | environment,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture
def place() -> Generator[Path]:
    """Where the run may put its directory; PostgreSQL's account must be able to pass."""
    with tempfile.TemporaryDirectory(prefix="stockade-tests-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


def find_processes(place: Path) -> list[str]:
    """Command lines that name a path below this one."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [entry.parent.name] if os.fsencode(place) in entry.read_bytes() else []
    return found


def test_it_measures_a_row_on_servers_of_its_own_and_removes_them(place: Path, tmp_path: Path):
    record = tmp_path / "bench.json"
    arguments = ("--only", "P7", "--seconds", "0.3", "--repeats", "1", "--skus", "50", "--json", str(record))
    done = run(*arguments, TMPDIR=str(place))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nP7 ") == 1, done.stdout
    document = json.loads(record.read_text())
    [row] = document["rows"]
    assert (row["id"], row["faults"]) == ("P7", [])
    [repeat] = row["repeats"]
    assert row["ratio"] == pytest.approx(repeat["product"]["value"] / repeat["reference"]["value"])
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert repeat["product"]["detail"]["product_us"] > 0
    assert repeat["product"]["detail"]["postgres_us"] > 0
    assert document["machine"]["postgresql_settings"]["fsync"] == "on"
    assert "GET /integrity: 0 violations" in done.stderr
    assert list(place.iterdir()) == []
    assert find_processes(place) == []


def test_it_stops_and_removes_everything_when_it_is_interrupted(place: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "--only", "P5", "--skus", "50"],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(place)}, stderr=subprocess.PIPE, text=True,
        # A job in the background of a script is born deaf to SIGINT, and so would be all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no other thread forks here
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert "stocking 50 SKUs" in process.stderr.readline()
        assert len(find_processes(place)) > 1
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert said.strip() == "bench: interrupted; its servers are stopped and its directory is removed"
    assert list(place.iterdir()) == []
    assert find_processes(place) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "P99"), "there is no row P99"),
        (("--seconds", "0"), "--seconds must be from 0.1 to 60"),
        (("--repeats", "0"), "--repeats must be from 1 to 50"),
        (("--skus", "5"), "--skus must be from 50 to 999999"),
        (("--json", "no/such/directory/bench.json"), "--json names a file in a directory that is not there"),
        (("--speed", "high"), "Unknown option"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], said: str):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
