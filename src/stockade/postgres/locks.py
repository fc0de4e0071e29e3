"""One Stockade per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from stockade.postgres.errors import DirectoryInUse, unusable

LOCK_NAME = "stockade.lock"


class DataLock:
    """The exclusive use of a data directory, from `hold_directory` until `release` or the end of this process.

    The kernel drops the lock with the last descriptor of it, so that no crash leaves a directory locked.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next one in. The file stays: to unlink it would let two processes lock two files of one name."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold_directory(directory: Path) -> DataLock:
    """Take `directory` for this process, or raise PostgresError naming the process that has it."""
    path = directory / LOCK_NAME
    try:
        # Python opens without inheritance: PostgreSQL must not keep the lock of a Stockade that was killed.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise unusable(directory, error) from error
    try:
        _lock(directory, descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise unusable(directory, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    return DataLock(path, descriptor)


def _lock(directory: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise DirectoryInUse(
            f"{directory} is in use by another stockade (process {holder}); stop it or choose another --data."
        ) from None
