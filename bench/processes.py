"""Child processes that cannot outlive the benchmark: stopped in an orderly way, else killed, else ended by the kernel."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.errors import BenchError

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 40
_KILL_TIMEOUT_S = 10
_TAIL_BYTES = 1_500


class Process:
    """A running child whose output goes to a file."""

    def __init__(self, command: Sequence[str | Path], *, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                env={**_clean_environment(), **environment},
                # In a session of its own, so that Ctrl-C reaches the benchmark alone, which then stops what it began.
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent(os.getpid()),  # noqa: PLW1509 - one system call, no Python import or lock
            )

    @property
    def id(self) -> int:
        return self._child.pid

    def check_alive(self) -> None:
        """Raise BenchError, with what it said last, when it has ended."""
        if self._child.poll() is not None:
            raise BenchError(f"{self.log.stem} ended with status {self._child.returncode}: {self._said_last()}")

    async def wait(self, *, limit_s: float) -> int:
        """Its exit code; it is killed, and BenchError raised, when that takes too long."""
        try:
            return await asyncio.to_thread(self._child.wait, limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchError(f"{self.log.stem} did not end within {limit_s:.0f} s: {self._said_last()}") from None

    async def stop(self) -> None:
        """End it as an operator would, and by force when that takes too long."""
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._child.wait, _STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End it by force."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(_KILL_TIMEOUT_S)

    def _said_last(self) -> str:
        lines = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def stockade(*arguments: str) -> list[str]:
    """The product's command, of the environment that this runs in."""
    return [sys.executable, "-m", "stockade", *arguments]


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def wait_until(condition: Callable[[], bool], *, limit_s: float, every_s: float = 0.02) -> None:
    """Return when the condition holds, asked off the event loop; TimeoutError when it does not in time."""
    deadline = time.monotonic() + limit_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(every_s)


def _clean_environment() -> dict[str, str]:
    """Ours, without settings of a Stockade or a PostgreSQL that is not the one measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("STOCKADE_", "PG"))}


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # The library is loaded before the fork: between fork and exec only the bare call is safe.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel
