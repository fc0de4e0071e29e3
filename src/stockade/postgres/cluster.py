"""The data directory on disk: its layout, the refusals that come before any server starts, and its creation.

- DATA/postgres/: the cluster (PGDATA), owned by the database's account
- DATA/secrets/postgres-admin: the superuser's password, readable by the caller alone
- DATA/run/: the socket (see `sockets`)
- DATA/postgres.log and postgres.log.1: what the server said, this time and before
- DATA/stockade.lock: one Stockade at a time (see `locks`)
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from stockade.postgres.accounts import Account, find_closed_directory, name_of, run_as
from stockade.postgres.binaries import Binaries
from stockade.postgres.errors import DISK_FULL_TEXT, PostgresError, disk_full, unusable

ADMIN_ROLE = "stockade_admin"
FREE_BYTES_MIN = 200 * 1024 * 1024

_INITDB_TIMEOUT_S = 180
_STAGING = "postgres.new-"

# The classes of characters (which pg_trgm asks for) come from LC_CTYPE even under the builtin provider, and under
# plain "C" every letter outside ASCII would be dropped. The first name that this operating system knows is taken.
_CHARACTER_LOCALES = ("C.UTF-8", "en_US.UTF-8", "C")


def cluster_directory(directory: Path) -> Path:
    """PGDATA of a data directory."""
    return directory / "postgres"


def create_directory(directory: Path, account: Account) -> Path:
    """Make the data directory if it is missing: ours alone, and passable for the account that must get through.

    Returns its path without links, which is the one that PostgreSQL is given.
    """
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o711 if account.is_other else 0o700)
    except OSError as error:
        raise unusable(directory, error) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PostgresError(
            f"{directory} is not writable by {name_of(os.geteuid())}: change its owner or choose another --data."
        )
    return directory.resolve()


def check_passable(directory: Path, account: Account) -> None:
    """Refuse a data directory that the database's account cannot get to."""
    closed = find_closed_directory(account, directory)
    if closed is not None:
        raise PostgresError(
            f"PostgreSQL runs as {account.name}, who may not enter {closed} on the way to {directory}: "
            f"choose a --data outside it, or allow that with `chmod o+x {closed}`."
        )


def read_version(directory: Path, account: Account) -> int | None:
    """The major version of the cluster, or None where there is none yet. Refuses what is not ours to touch."""
    data = cluster_directory(directory)
    try:
        if not data.exists() or (data.is_dir() and not any(data.iterdir())):
            return None
        owner = data.stat().st_uid
        if owner == account.uid:
            return int((data / "PG_VERSION").read_text().strip())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise PostgresError(
            f"{data} is not empty and holds no PostgreSQL cluster: move it away or choose another --data."
        ) from None
    except PermissionError:
        owner = data.stat().st_uid
    raise PostgresError(
        f"{data} belongs to {name_of(owner)}, but PostgreSQL would run as {account.name}: run stockade as its owner, "
        f"or stop it and `chown -R {account.name} {data}`, or choose another --data."
    )


def read_password(directory: Path, *, version: int | None) -> str:
    """The superuser's password; made and kept when the cluster is yet to come (`version` is None)."""
    path = directory / "secrets" / "postgres-admin"
    try:
        if path.is_symlink() or path.parent.is_symlink():
            raise PostgresError(f"{path} is a symbolic link: replace it by the file itself.")
        if path.exists():
            return path.read_text().strip()
        if version is not None:
            raise PostgresError(
                f"{path} is missing, without which the cluster beside it cannot be administered: "
                "put it back from a backup, or choose another --data."
            )
        password = secrets.token_urlsafe(32)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _write_durably(path, password)
    except OSError as error:
        raise unusable(directory, error) from error
    return password


def create_cluster(
    directory: Path, binaries: Binaries, account: Account, password: str, say: Callable[[str], None]
) -> None:
    """Run initdb. The cluster appears under its name only when it is complete, so that a crash half-way is harmless."""
    for leftover in directory.glob(f"{_STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    _check_free_space(directory)
    say(f"Creating a PostgreSQL {binaries.version} cluster in {cluster_directory(directory)}")
    staging = directory / f"{_STAGING}{secrets.token_hex(4)}"
    try:
        staging.mkdir(mode=0o700)
        account.own(staging)
        _write_durably(staging / "password", password)
        account.own(staging / "password")
        _run_initdb(staging, binaries, account)
        (staging / "data").rename(cluster_directory(directory))
        _sync_directory(directory)
    except OSError as error:
        raise unusable(directory, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_free_space(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_MIN:
        raise PostgresError(
            f"{directory} has {free // 2**20} MB free and a new cluster needs {FREE_BYTES_MIN // 2**20} MB: "
            "free some space there or choose another --data."
        )


def _run_initdb(staging: Path, binaries: Binaries, account: Account) -> None:
    said = ""
    for character_locale in _CHARACTER_LOCALES:
        command = [binaries.directory / "initdb", *_initdb_options(staging, binaries.version, character_locale)]
        try:
            result = run_as(account, command, timeout_s=_INITDB_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PostgresError(f"initdb did not finish within {_INITDB_TIMEOUT_S} s: is the disk too slow?") from None
        if result.returncode == 0:
            return
        said = result.stderr.strip() or result.stdout.strip()
        if "locale" not in said:
            break
    if DISK_FULL_TEXT in said:
        raise disk_full(staging.parent)
    telling = [line for line in said.splitlines() if "error" in line.lower() or "fatal" in line.lower()]
    reason = telling[0] if telling else f"initdb ended with {said[-200:]!r}"
    raise PostgresError(f"PostgreSQL could not create a cluster in {staging.parent}: {reason}")


def _initdb_options(staging: Path, version: int, character_locale: str) -> list[str]:
    """Byte order, the same on every machine, so that no index depends on the version of a C library."""
    provider = ["builtin", "--builtin-locale=C.UTF-8"] if version >= 17 else ["libc"]
    return [
        f"--pgdata={staging / 'data'}",
        f"--username={ADMIN_ROLE}",
        f"--pwfile={staging / 'password'}",
        "--auth-local=scram-sha-256",
        "--auth-host=scram-sha-256",
        "--data-checksums",
        "--encoding=UTF8",
        "--locale=C",
        f"--lc-ctype={character_locale}",
        "--locale-provider=" + provider[0],
        *provider[1:],
        "--no-instructions",
    ]


def _write_durably(path: Path, text: str) -> None:
    """Write a file for its owner's eyes only; it is complete and on the disk when this returns, or not there."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
