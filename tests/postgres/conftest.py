"""Real servers in directories that the database's account can get to, which pytest's own `tmp_path` is not for root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from stockade.postgres import PostgresServer
from tests.postgres.processes import PYTHON_PATH, StartWriter

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def module_base() -> Iterator[Path]:
    yield from _passable_directory()


@pytest.fixture
def base() -> Iterator[Path]:
    yield from _passable_directory()


@pytest.fixture
def directory(base: Path) -> Path:
    """A data directory that does not exist yet."""
    return base / "data"


@pytest.fixture(scope="module")
async def server(module_base: Path) -> AsyncIterator[PostgresServer]:
    """One server for a whole file. It logs every statement, so that a test can look for secrets in there."""
    server = await PostgresServer.start(module_base / "data", durable=False, settings={"log_statement": "all"})
    yield server
    await server.stop()


@pytest.fixture
def start_writer(base: Path) -> Iterator[StartWriter]:
    """Start `writer.py` as a process of its own, by default as ourselves; it is killed when the test ends."""
    started: list[tuple[Path, subprocess.Popen[str]]] = []

    def start(
        directory: Path, *options: str, python: str = sys.executable, uid: int | None = None, groups: Sequence[int] = ()
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [python, WRITER, directory, *options],
            cwd=base,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": PYTHON_PATH, "PYTHONDONTWRITEBYTECODE": "1"},
            user=uid,
            group=uid,
            extra_groups=groups if os.geteuid() == 0 else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append((directory, process))
        return process

    yield start
    for directory, process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
        deadline = time.monotonic() + 20
        while (directory / "postgres" / "postmaster.pid").exists():
            assert time.monotonic() < deadline, "the server outlived its Stockade"
            time.sleep(0.05)


def _passable_directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="stockade-tests-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)
