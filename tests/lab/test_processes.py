"""Programs of the lab are ended by us and by nobody's name, and no other process is ever touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from lab.processes import ProcessError, Processes

_SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
_STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


@pytest.fixture
def processes(tmp_path: Path) -> Generator[Processes]:
    opened = Processes(tmp_path / "processes")
    opened.directory.mkdir()
    yield opened
    opened.stop()


def _wait_for_output(processes: Processes, name: str) -> None:
    deadline = time.monotonic() + 20
    while "up" not in processes.read_log_end(name):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_command_finds_and_ends_what_was_started(processes: Processes) -> None:
    processes.start("sleeper", _SLEEP)
    assert processes.list_running() == ["sleeper"]
    later = Processes(processes.directory)
    later.check()
    later.stop()
    assert processes.list_running() == []


def test_a_program_that_will_not_end_is_killed(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.processes._STOP_TIMEOUT_S", 0.3)
    processes.start("stubborn", _STUBBORN)
    _wait_for_output(processes, "stubborn")
    processes.stop("stubborn")
    assert processes.list_running() == []


def test_a_program_that_ended_by_itself_is_reported_with_its_last_words(processes: Processes) -> None:
    processes.start("brief", [sys.executable, "-c", "raise SystemExit('no room left')"])
    with pytest.raises(ProcessError, match="brief ended: no room left"):
        _check_until_it_fails(processes)


def test_a_process_that_got_the_number_of_ours_is_left_alone(processes: Processes) -> None:
    stranger = subprocess.Popen(_SLEEP, stdout=subprocess.DEVNULL)
    try:
        # Ours had this number, and began at another time.
        (processes.directory / "ours.pid").write_text(f"{stranger.pid} 1\n")
        assert processes.list_running() == []
        processes.stop()
        assert stranger.poll() is None
        assert not (processes.directory / "ours.pid").exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_ending_one_leaves_the_others(processes: Processes) -> None:
    processes.start("first", _SLEEP)
    processes.start("second", _SLEEP)
    processes.stop("first")
    assert processes.list_running() == ["second"]


def test_it_ends_what_ctrl_c_at_the_terminal_does_not_reach(processes: Processes) -> None:
    processes.start("apart", _SLEEP)
    pid = int((processes.directory / "apart.pid").read_text().split()[0])
    assert os.getsid(pid) == pid != os.getsid(0)
    os.kill(pid, signal.SIGKILL)


def _check_until_it_fails(processes: Processes) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        processes.check()
        time.sleep(0.05)
