"""From the lock files to the finished archive."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image import wheels
from image.bill import write_bill
from image.debian import Archive, DebianError, Package, read_lock
from image.layers import Layer, unpack_layer, write_layer
from image.layout import write_archive
from image.rootfs import assemble
from image.wheels import Wheel
from stockade import __version__

PROJECT = Path(__file__).parents[1]
LOCK = PROJECT / "image/packages.lock"

# The time of every file unless SOURCE_DATE_EPOCH says another: the oldest that every archive format can hold. Not the
# time of the commit, which would give every commit another digest, and every node another image to fetch for nothing.
_EPOCH = 315_532_800

Say = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """What `build_image` wrote. `size` is what the layers hold unpacked, in bytes."""

    archive: Path
    bill: Path
    digest: str
    size: int


@dataclass(frozen=True)
class _Parts:
    """The image while its files are still at hand."""

    root: Path
    layers: list[Layer]
    packages: Mapping[Package, Path]
    wheels: list[Wheel]


def build_image(
    output: Path, *, cache: Path, mirror: str | None = None, revision: str | None = None, exact: bool = False, say: Say
) -> Built:
    """Write the archive, its digest and its bill of materials to `output`.

    `exact` refuses to build when a recorded Debian package is gone from the archive. Raises DebianError, WheelError
    and RootError.
    """
    output.mkdir(parents=True, exist_ok=True)
    stem = f"stockade-{__version__}"
    archive, bill = output / f"{stem}.oci.tar", output / f"{stem}.cdx.json"
    epoch = _read_epoch()
    with _make_parts(cache, mirror, exact, say, epoch) as parts:
        unfinished = archive.with_suffix(".new")
        digest = write_archive(unfinished, parts.layers, version=__version__, revision=revision, epoch=epoch)
        unfinished.replace(archive)
        write_bill(
            bill, root=parts.root, packages=parts.packages, wheels=parts.wheels, version=__version__, digest=digest,
            epoch=epoch,
        )  # fmt: skip
        (output / f"{stem}.digest").write_text(f"{digest}\n")
        return Built(archive, bill, digest, sum(layer.size for layer in parts.layers))


def unpack_image(root: Path, *, cache: Path, mirror: str | None = None, say: Say) -> None:
    """Write the image's files to the directory `root`, exactly as the layers have them."""
    root.mkdir(parents=True)
    with _make_parts(cache, mirror, False, say, _read_epoch()) as parts:
        for layer in parts.layers:
            unpack_layer(layer, root)


@contextmanager
def _make_parts(cache: Path, mirror: str | None, exact: bool, say: Say, epoch: int) -> Generator[_Parts]:
    locked = read_lock(LOCK)
    with _hold(cache):
        say(f"fetching {len(locked)} Debian packages")
        packages, notes = Archive(cache / "debian", mirror=mirror).fetch(locked)
        for note in notes:
            say(note)
        if exact and set(packages) != set(locked.values()):
            raise DebianError("not every Debian package is as recorded, and --exact wants them so")
        say("fetching the wheels of requirements/runtime.txt")
        dependencies = wheels.fetch(PROJECT / "requirements/runtime.txt", cache)
    with tempfile.TemporaryDirectory(prefix="stockade-image-") as work:
        own = wheels.build(PROJECT, _make(Path(work) / "wheel"))
        say("unpacking and compiling")
        root = _make(Path(work) / "root")
        stages = assemble(root, packages, dependencies, own)
        layers = [
            write_layer(root, stage, Path(work) / f"{number}.tar", epoch=epoch) for number, stage in enumerate(stages)
        ]
        yield _Parts(root, layers, packages, [*dependencies, own])


@contextmanager
def _hold(cache: Path) -> Generator[None]:
    """Wait for whoever fetches into the same cache: apt refuses to share its directories, and pip would fetch twice."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_epoch() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(given) if given.isdecimal() else _EPOCH


def _make(directory: Path) -> Path:
    directory.mkdir()
    return directory
