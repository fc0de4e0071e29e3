"""One image for all tests of this folder, built once a run, from a copy of what the Containerfile copies."""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.image.archives import Image, read_image, unpack_image
from tests.image.containerfile import copy_context

BUILD_LIMIT_S = 400


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the workers of one run share."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    base = tmp_path_factory.getbasetemp()
    folder = base.parent / f"image-{run}" if run else base / "image"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def context(run_folder: Path) -> Path:
    """What `docker build` would see: so the image is also shown to need no other file of the repository."""
    needs_a_builder()
    return once(run_folder / "context", copy_context)


@pytest.fixture(scope="session")
def image(run_folder: Path, context: Path) -> Image:
    directory = once(run_folder / "built", lambda output: run_image(context, "build", "--output", str(output)))
    return read_image(directory)


@pytest.fixture(scope="session")
def root(run_folder: Path, image: Image) -> Path:
    """The image's files, unpacked. Nobody changes them."""
    return once(run_folder / "root", lambda directory: unpack_image(image, directory))


def needs_a_builder() -> None:
    if platform.machine() != "x86_64" or not all(map(shutil.which, ("apt-get", "dpkg-deb", "tar"))):
        pytest.skip("make image needs apt-get and dpkg-deb on x86_64: the image is not tested on this machine")


def run_image(folder: Path, *arguments: str, environment: dict[str, str] | None = None, umask: int = -1) -> str:
    """`python -m image`, which must succeed, in the copy of the repository at `folder`; what it printed."""
    code, said, errors = try_image(folder, *arguments, environment=environment, umask=umask)
    assert code == 0, errors
    return said


def try_image(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, umask: int = -1
) -> tuple[int, str, str]:
    """The same, whatever comes of it: exit code, output, errors."""
    done = subprocess.run(
        [sys.executable, "-m", "image", *arguments],
        cwd=folder, env=os.environ | (environment or {}), umask=umask, capture_output=True, text=True,
        timeout=BUILD_LIMIT_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, after the first worker that asks for it has made it."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = path.with_suffix(".finished")
        if not finished.exists():
            make(path)
            finished.touch()
    return path
