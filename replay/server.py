"""A Stockade of the replay's own: started in a directory that nothing else uses, stopped and removed at the end."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from replay.errors import Broken

_EMAIL = "replay@stockade.local"
_START_LIMIT_S = 180
_STOP_LIMIT_S = 90
_POLL_S = 0.05
_READY = re.compile(rb"^stockade: ready in .*? s: (http://\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Access:
    """Where a Stockade answers, and as whom the replay signs in there."""

    url: str
    email: str
    password: str


@contextlib.contextmanager
def make_directory() -> Generator[Path]:
    """A directory that is gone afterwards. PostgreSQL, which is not root, can pass through it but not list it."""
    directory = Path(tempfile.mkdtemp(prefix="stockade-replay-"))
    try:
        directory.chmod(0o711)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def run_stockade(directory: Path) -> Generator[Access]:
    """Run `stockade up` in a directory until the end of the block, however that comes. Raises Broken if it does not start."""
    log = directory / "stockade.out"
    password = secrets.token_hex(16)
    command = [Path(sys.executable).with_name("stockade"), "up", "--data", directory / "data", "--port", "0"]
    with log.open("wb") as output:
        # In a session of its own, so that Ctrl-C reaches only this process, which then stops the other in good order.
        process = subprocess.Popen(
            command,
            env=_clean_environment() | {"STOCKADE_ADMIN_EMAIL": _EMAIL, "STOCKADE_ADMIN_PASSWORD": password},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Access(_wait_until_ready(process, log), _EMAIL, password)
    finally:
        _stop(process)


def _clean_environment() -> dict[str, str]:
    # A STOCKADE_DATABASE_URL of the caller would send the load into the database of the company.
    return {name: value for name, value in os.environ.items() if not name.startswith("STOCKADE_")}


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if found := _READY.search(log.read_bytes()):
            return found[1].decode()
        if process.poll() is not None:
            break
        time.sleep(_POLL_S)
    said = " / ".join(log.read_text(errors="replace").splitlines()[-3:]) or "it said nothing"
    raise Broken(f"A Stockade of the replay's own does not start: {said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_LIMIT_S)
    finally:
        # Reached early by a second Ctrl-C. PostgreSQL ends with its parent by itself.
        if process.poll() is None:
            process.kill()
            process.wait(_STOP_LIMIT_S)
