"""The one error of this package."""

from __future__ import annotations

import errno
from pathlib import Path

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
DISK_FULL_TEXT = "No space left on device"


class PostgresError(Exception):
    """PostgreSQL cannot be found, run or prepared.

    The message is one line for a person: what is wrong, with the path or role that it concerns, and what to do
    next. It never holds a password.
    """


class DirectoryInUse(PostgresError):
    """Another Stockade runs on this data directory."""


def disk_full(directory: Path) -> PostgresError:
    """The refusal for a file system without room, wherever it was noticed."""
    return PostgresError(f"The disk that holds {directory} is full: free some space there or choose another --data.")


def unusable(directory: Path, error: OSError) -> PostgresError:
    """The refusal for a directory in which the operating system does not let us work."""
    if error.errno in DISK_FULL:
        return disk_full(directory)
    reason = error.strerror or type(error).__name__
    where = error.filename if isinstance(error.filename, str) else str(directory)
    return PostgresError(f"{directory} cannot be used ({where}: {reason}): make it writable or choose another --data.")
