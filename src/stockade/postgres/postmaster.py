"""The server process: launching it so that it never outlives us for long, and seeing off one that did."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from stockade.postgres.accounts import Account, clean_environment
from stockade.postgres.binaries import Binaries
from stockade.postgres.errors import PostgresError
from stockade.postgres.logs import ServerLog
from stockade.postgres.sockets import SOCKET_NAME

EARLIER_WAIT_S = 30
POLL_S = 0.1

_PR_SET_PDEATHSIG = 1
_QUIT_WAIT_S = 5


def launch_postmaster(
    binaries: Binaries, account: Account, data: Path, settings: Mapping[str, str], log: ServerLog
) -> subprocess.Popen[bytes]:
    """Start `postgres` as our child, in a session of its own so that Ctrl-C in a terminal reaches only us.

    On Linux the kernel shuts it down (SIGINT, "fast") when the thread that called this ends, however it ends. `Popen`
    rather than asyncio's subprocesses, because uvloop's refuse to switch the user.
    """
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with log.open() as output:
        return subprocess.Popen(
            [binaries.directory / "postgres", "-D", data, *options],
            cwd="/",
            env=clean_environment(),
            user=account.switch_uid,
            group=account.switch_gid,
            extra_groups=account.switch_groups,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Safe beside threads: what runs between fork and exec is one system call and no Python import or lock.
            preexec_fn=_end_with_parent(os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
        )


async def see_off_earlier(data: Path, socket_directory: Path, account: Account, say: Callable[[str], None]) -> None:
    """Wait until a server that a killed Stockade left behind in `data` is gone.

    The caller holds the directory's lock, so such a server has no owner any more: it is asked to shut down (which
    on Linux the kernel has done already), after 30 s told to, and after 5 more given up on with PostgresError.
    """
    notes = (data / "postmaster.pid", socket_directory / f"{SOCKET_NAME}.lock")
    pid = _noted_pid(notes[0])
    if pid is None or not _is_live(pid) or not _serves(pid, data):
        for note in notes:
            _forget_recycled_pid(note, account)
        return
    say(f"Waiting for the previous PostgreSQL (process {pid}) to shut down")
    for how, wait_s in ((signal.SIGINT, EARLIER_WAIT_S), (signal.SIGQUIT, _QUIT_WAIT_S)):
        _signal(pid, how)
        if await _is_gone(pid, data, wait_s):
            return
    raise PostgresError(
        f"The previous PostgreSQL (process {pid}) still runs in {data} and does not end: "
        f"end it with `kill -QUIT {pid}` and start again."
    )


async def stop_postmaster(process: subprocess.Popen[bytes], *, fast_wait_s: float) -> None:
    """Shut down fast (sessions are cut, a checkpoint is written), then immediately, then by force; all bounded."""
    for how, wait_s in ((signal.SIGINT, fast_wait_s), (signal.SIGQUIT, _QUIT_WAIT_S), (signal.SIGKILL, _QUIT_WAIT_S)):
        if process.poll() is not None:
            return
        process.send_signal(how)
        deadline = time.monotonic() + wait_s
        while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 -- a child sends no event.
            await asyncio.sleep(POLL_S / 2)


def describe_end(code: int) -> str:
    """A return code of `Popen` in words."""
    try:
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    except ValueError:
        return f"ended by signal {-code}"


def _end_with_parent(parent: int) -> Callable[[], None]:
    # The library is loaded before the fork: between fork and exec only the bare call is safe.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask_kernel() -> None:
        # A change of user forgets this request, so it is made here, after Popen has changed it.
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


def _noted_pid(note: Path) -> int | None:
    try:
        first_line = note.read_text().partition("\n")[0]
        # Stand-alone backends write the negative of their process id.
        return abs(int(first_line)) or None
    except (OSError, ValueError):
        return None


def _is_live(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _serves(pid: int, data: Path) -> bool:
    """Whether the process is a server of this very directory, by its command line."""
    return str(data) in _command_line(pid)


def _command_line(pid: int) -> list[str]:
    try:
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return []


def _forget_recycled_pid(note: Path, account: Account) -> None:
    """Remove a lock file whose process id another program of the same user has now, as happens in containers.

    PostgreSQL would take that program, or a dead server that nobody has collected, for one that runs, and refuse to
    start. Its second guard, the shared memory that goes with the directory, still stands.
    """
    pid = _noted_pid(note)
    try:
        if pid is not None and Path(f"/proc/{pid}").stat().st_uid == account.uid:
            note.unlink(missing_ok=True)
    except OSError:
        # It ended meanwhile, or there is no /proc here; then PostgreSQL decides.
        return


def _signal(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except (ProcessLookupError, PermissionError):
        return


async def _is_gone(pid: int, data: Path, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if not _is_live(pid) or not _serves(pid, data):
            return True
        await asyncio.sleep(POLL_S)
    return False
