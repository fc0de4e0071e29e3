"""What the tests of this folder share about processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

import stockade.postgres
from stockade.postgres import PostgresServer

# Our source and the packages, for a Python that knows neither.
PYTHON_PATH = os.pathsep.join(
    str(Path(file).parents[up]) for file, up in ((stockade.postgres.__file__, 2), (asyncpg.__file__, 1))
)

StartWriter = Callable[..., "subprocess.Popen[str]"]


async def eventually(condition: Callable[[], bool], *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def pid_of(server: PostgresServer) -> int:
    assert server.process_id is not None
    return server.process_id


def find_python_for(uid: int) -> str:
    """A Python of our version for another user: ours may lie where only root can read it."""
    version = f"python3.{sys.version_info.minor}"
    for python in filter(None, [sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")]):
        try:
            probe = subprocess.run(
                [python, "-c", "import asyncpg"],
                env={"PYTHONPATH": PYTHON_PATH},
                user=uid,
                group=uid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if probe.returncode == 0:
            return python
    pytest.skip(f"nobody can run no {version} that finds our packages")
