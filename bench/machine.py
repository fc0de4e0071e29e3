"""Where it was measured: hardware, software, and how fast the disk takes a commit."""

import os
import platform
import re
import statistics
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.installation import Installation

_PACKAGES = ("stockade", "fastapi", "starlette", "pydantic", "uvicorn", "httptools", "uvloop", "asyncpg", "msgspec")
_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_connections")
_SYNCS = 50
_BLOCK = b"\0" * 8192


def describe_machine() -> dict[str, Any]:
    """What does not depend on the run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _find_processor(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _find_version(name))},
        "commit": _find_commit(),
    }


def describe_place(directory: Path) -> dict[str, Any]:
    """The file system of the data, and the median time of writing 8 KiB and having the device say that it is safe."""
    times_ms: list[float] = []
    with (directory / "sync").open("wb") as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            file.write(_BLOCK)
            file.flush()
            os.fdatasync(file.fileno())
            times_ms.append((time.perf_counter() - began) * 1e3)
    return {"filesystem": _find_filesystem(directory), "fdatasync_ms": round(statistics.median(times_ms), 3)}


async def describe_database(installation: Installation) -> dict[str, Any]:
    """PostgreSQL's version, where its programs are from, and the settings that a rate depends on."""
    shown = {name: await installation.admin.fetchval("SELECT current_setting($1)", name) for name in _SETTINGS}
    return {
        "postgresql": await installation.admin.fetchval("SHOW server_version"),
        "postgresql_from": installation.server.binaries.origin,
        "postgresql_settings": shown,
    }


def _find_processor() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match.group(1) if match else platform.machine()


def _find_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _find_commit() -> str:
    """The commit that is checked out, with a + when files differ from it; empty outside a clone."""
    command = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty=+",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _find_filesystem(directory: Path) -> str:
    """The type of the file system that a directory lies on: that of the longest mount point above it."""
    found = {"": ""}
    place = str(directory.resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if place.startswith(mount.rstrip("/") + "/"):
            found[mount] = kind
    return found[max(found, key=len)]
