"""Where the server's Unix socket lies: the only way in, behind a directory that nobody else may enter."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from stockade.postgres.accounts import Account, find_closed_directory
from stockade.postgres.errors import PostgresError, unusable

PORT = 5432
SOCKET_NAME = f".s.PGSQL.{PORT}"

# sun_path has 108 bytes on Linux and 104 on macOS and the BSDs, one of them for the final NUL.
PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103

_NOTE = "run.path"


def prepare_socket_directory(directory: Path, account: Account) -> Path:
    """A directory, 0700 and owned by `account`, whose socket has a path that the kernel accepts.

    It is `directory/run`. Where that is too long, it is a directory of a random name among the temporary files, noted
    in `directory/run.path`, so that the next start uses it again.
    """
    try:
        nearby = directory / "run"
        return _own_directory(nearby, account) if _fits(nearby) else _distant_directory(directory, account)
    except OSError as error:
        raise unusable(directory, error) from error


def find_socket_directory(directory: Path) -> Path:
    """Where the server that runs on `directory` has its socket, as `prepare_socket_directory` left it."""
    nearby = directory / "run"
    return nearby if _fits(nearby) else Path((directory / _NOTE).read_text().strip())


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / SOCKET_NAME)) <= PATH_BYTES_MAX


def _own_directory(path: Path, account: Account) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink():
        raise PostgresError(f"{path} is a symbolic link: remove it.")
    account.own(path)
    path.chmod(0o700)
    return path


def _distant_directory(directory: Path, account: Account) -> Path:
    note = directory / _NOTE
    if note.exists() and _is_private(remembered := Path(note.read_text().strip()), account):
        return remembered
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):  # noqa: S108 -- mkdtemp makes it private.
        if Path(parent).is_dir() and _fits(Path(parent) / "stockade-12345678"):
            if find_closed_directory(account, Path(parent)) is not None:
                continue
            path = _own_directory(Path(tempfile.mkdtemp(prefix="stockade-", dir=parent)), account)
            note.write_text(f"{path}\n")
            return path
    raise PostgresError(
        f"The path of {directory} is too long for a Unix socket and no temporary directory is short enough: "
        "choose a shorter --data."
    )


def _is_private(path: Path, account: Account) -> bool:
    """Whether a remembered directory is still the one we made, and not a trap that somebody laid in its place."""
    try:
        state = path.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(state.st_mode) and state.st_uid == account.uid and stat.S_IMODE(state.st_mode) == 0o700
    return mine and _fits(path)
