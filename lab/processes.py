"""Long-running programs by process id: started apart from us, found again by the next command, ended for certain."""

import os
import signal
import subprocess
import time
from pathlib import Path

_STOP_TIMEOUT_S = 10.0
_KILL_TIMEOUT_S = 5.0
_POLL_S = 0.05


class ProcessError(Exception):
    """A program ended by itself, or would not end; the text has the last lines of its log."""


class Processes:
    """The programs of one cluster. `directory` keeps `NAME.pid` and `NAME.log` of each.

    A process id alone may by now be somebody else's, so it is kept together with the time at which its process began.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Children of this very process stay in the table until somebody asks for their exit code.
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str], *, environment: dict[str, str] | None = None) -> None:
        """Start a program in a session of its own, so that Ctrl-C at a terminal leaves it to `stop`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=None if environment is None else os.environ | environment,
            )  # fmt: skip
        self._children.append(child)
        started = _read_start(child.pid)
        if started is not None:
            (self.directory / f"{name}.pid").write_text(f"{child.pid} {started}\n")

    def check(self) -> None:
        """Raise ProcessError when a program that was started does not run any more."""
        for path in sorted(self.directory.glob("*.pid")):
            if not self._is_running(path):
                raise ProcessError(f"{path.stem} ended: {self.read_log_end(path.stem)}")

    def read_log_end(self, name: str, lines: int = 3) -> str:
        log = self.directory / f"{name}.log"
        return " / ".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "no log"

    def list_running(self) -> list[str]:
        return [path.stem for path in sorted(self.directory.glob("*.pid")) if self._is_running(path)]

    def stop(self, *names: str) -> None:
        """End the named programs together, or all: first asked, then killed. Raises ProcessError if one survives."""
        wanted = [self.directory / f"{name}.pid" for name in names] or sorted(self.directory.glob("*.pid"))
        paths = [path for path in wanted if path.exists()]
        for sent, timeout_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, _KILL_TIMEOUT_S)):
            for path in paths:
                self._signal(path, sent)
            deadline = time.monotonic() + timeout_s
            while any(map(self._is_running, paths)) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        survivors = [path.stem for path in paths if self._is_running(path)]
        if survivors:
            raise ProcessError(f"{', '.join(survivors)} would not end")
        for path in paths:
            path.unlink()

    def _signal(self, path: Path, number: int) -> None:
        if self._is_running(path):
            os.kill(_read_pid(path)[0], number)

    def _is_running(self, path: Path) -> bool:
        for child in self._children:
            child.poll()
        pid, started = _read_pid(path)
        return _read_start(pid) == started


def _read_pid(path: Path) -> tuple[int, int]:
    pid, started = path.read_text().split()
    return int(pid), int(started)


def _read_start(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None when it has ended."""
    try:
        # The name of the program, in parentheses, may hold anything; what follows it is fields 3 and up of proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])
