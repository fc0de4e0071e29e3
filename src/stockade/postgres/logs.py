"""The server's log: two files of bounded size, and the line in them that tells why it ended."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import BinaryIO

LOG_BYTES_MAX = 16 * 1024 * 1024

_TAIL_BYTES = 64 * 1024

# Sessions end with FATAL, too; what they are told says nothing about why the server itself ended.
_TELLING = re.compile(
    r"\b(?:FATAL|PANIC):\s+"
    r"(?!the database system is|terminating|password authentication|sorry, too many|remaining connection|connection to)"
    r"(.+)"
)
_SHARED_MEMORY_BUSY = "pre-existing shared memory block"


class ServerLog:
    """`postgres.log` of a data directory and, beside it, its predecessor."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "postgres.log"
        self.previous = directory / "postgres.log.1"
        self._begun_at = 0

    def rotate(self) -> None:
        """Keep what the last run wrote as the previous log, in place of the one before."""
        if self.path.exists():
            self.path.replace(self.previous)

    def open(self) -> BinaryIO:
        """Open for a server that starts now; what it writes is told from what others wrote before."""
        file = self.path.open("ab", buffering=0)
        self.path.chmod(0o600)
        self._begun_at = self.path.stat().st_size
        return file

    def is_large(self) -> bool:
        """Whether `truncate` is due."""
        try:
            return self.path.stat().st_size > LOG_BYTES_MAX
        except FileNotFoundError:
            return False

    def truncate(self) -> None:
        """Copy the log to the previous one and empty it. The server goes on at its start, since it only appends."""
        # Where the disk is full, room matters more than the past.
        with contextlib.suppress(OSError):
            shutil.copyfile(self.path, self.previous)
            self.previous.chmod(0o600)
        with self.path.open("r+b") as file:
            file.truncate(0)
        self._begun_at = 0

    def tail(self) -> str:
        """What the server that was started last has said, no more than the last 64 KiB of it."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(min(self._begun_at, size), size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    def find_reason(self) -> str:
        """The line that tells best why the server ended: its last FATAL or PANIC, or its last words."""
        tail = self.tail()
        telling = _TELLING.findall(tail)
        if telling:
            return str(telling[-1]).strip()
        lines = [line for line in tail.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it left no message"

    def blames_shared_memory(self) -> bool:
        """Whether processes of an earlier server still hold its memory, which ends by itself within seconds."""
        return _SHARED_MEMORY_BUSY in self.tail()
