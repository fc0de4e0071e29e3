"""The operating system account that PostgreSQL runs as.

PostgreSQL refuses root. When we are root the server runs as the account `postgres` if there is one and as `nobody`
otherwise; an ordinary user runs it as itself. No account is created and no directory that exists is opened up.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stockade.postgres.errors import PostgresError

ACCOUNTS_FOR_ROOT = ("postgres", "nobody")

_FIND_CLOSED_DIRECTORY = 'for d do [ -x "$d" ] || { printf %s "$d"; exit; }; done'


@dataclass(frozen=True)
class Account:
    """Whom PostgreSQL runs as; `is_other` says that a child must be switched to it."""

    name: str
    uid: int
    gid: int
    is_other: bool

    @property
    def switch_uid(self) -> int | None:
        """The `user` argument of `subprocess.Popen`."""
        return self.uid if self.is_other else None

    @property
    def switch_gid(self) -> int | None:
        """The `group` argument of `subprocess.Popen`."""
        return self.gid if self.is_other else None

    @property
    def switch_groups(self) -> list[int] | None:
        """The `extra_groups` argument of `subprocess.Popen`: root's own groups must not be kept."""
        return [] if self.is_other else None

    def own(self, path: Path) -> None:
        """Give `path` to the account. A link is never followed: root must not be led to give away /etc."""
        if self.is_other:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def database_account() -> Account:
    """The account to run PostgreSQL as. Raises PostgresError when this machine has none that PostgreSQL accepts."""
    uid = os.geteuid()
    if uid != 0:
        entry = _entry_of_uid(uid)
        if entry is None:
            raise PostgresError(
                f"User id {uid} has no entry in /etc/passwd, which PostgreSQL needs: "
                "add one or give STOCKADE_DATABASE_URL."
            )
        return Account(entry.pw_name, uid, os.getegid(), is_other=False)
    for name in ACCOUNTS_FOR_ROOT:
        entry = _entry_of_name(name)
        if entry is not None and entry.pw_uid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, is_other=True)
    raise PostgresError(
        "PostgreSQL does not run as root and there is neither a user postgres nor nobody: "
        "add one, or run stockade as an ordinary user."
    )


def run_as(account: Account, command: Sequence[str | Path], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run `command` as `account`, away from our directory, terminal and environment; both outputs are captured."""
    return subprocess.run(
        command,
        cwd="/",
        env=clean_environment(),
        user=account.switch_uid,
        group=account.switch_gid,
        extra_groups=account.switch_groups,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """What a child of ours sees: no secret of ours, no PG* variable that would redirect it, messages in English."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C"}


def name_of(uid: int) -> str:
    """The name of a user id, or the number where it has none."""
    entry = _entry_of_uid(uid)
    return f"user id {uid}" if entry is None else entry.pw_name


def find_closed_directory(account: Account, directory: Path) -> Path | None:
    """The outermost directory on the way to `directory` that `account` may not enter, or None.

    The kernel is asked, as that user, because mode bits alone say nothing about access lists.
    """
    if not account.is_other:
        return None
    way = [*reversed(directory.parents), directory]
    answer = run_as(account, ["/bin/sh", "-c", _FIND_CLOSED_DIRECTORY, "sh", *way], timeout_s=10)
    return Path(answer.stdout) if answer.stdout else None


def _entry_of_uid(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _entry_of_name(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
