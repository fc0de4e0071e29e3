"""Layers: tar archives in which nothing depends on the machine that wrote them."""

import hashlib
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from image.rootfs import Stage

_WRITABLE_BY_ALL = {"tmp"}


@dataclass(frozen=True)
class Layer:
    """A layer's file, its SHA-256 (which is its digest as well as its diff id: it is not compressed) and its size."""

    title: str
    file: Path
    sha256: str
    size: int


def write_layer(root: Path, stage: Stage, file: Path, *, epoch: int) -> Layer:
    """Write the paths of a stage, in order, as root's, with one time for all.

    It is left uncompressed because two versions of zlib compress differently, and then the same content has two
    digests; registries and clients compress on the way.
    """
    with file.open("wb") as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in stage.paths:
            _add(archive, root, path, epoch)
    with file.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Layer(stage.title, file, digest, file.stat().st_size)


def unpack_layer(layer: Layer, root: Path) -> None:
    """Put the layer's files under `root`; they belong to root when root runs this, else to whoever does."""
    subprocess.run(
        ["tar", "--extract", "--preserve-permissions", "--file", layer.file, "--directory", root], check=True
    )


def _add(archive: tarfile.TarFile, root: Path, path: str, epoch: int) -> None:
    source = root / path
    entry = tarfile.TarInfo(path)
    entry.mtime = epoch
    if source.is_symlink():
        entry.type, entry.mode, entry.linkname = tarfile.SYMTYPE, 0o777, str(source.readlink())
        archive.addfile(entry)
    elif source.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if path in _WRITABLE_BY_ALL else 0o755
        archive.addfile(entry)
    else:
        status = source.stat()
        entry.size, entry.mode = status.st_size, 0o755 if status.st_mode & 0o100 else 0o644
        with source.open("rb") as content:
            archive.addfile(entry, content)
