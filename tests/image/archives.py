"""Reads an image archive by the specification alone, without the code that wrote it."""

import hashlib
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Image:
    """An archive that was read and whose every blob has the digest that names it."""

    archive: Path
    bill: dict[str, Any]
    index: dict[str, Any]
    manifest: dict[str, Any]
    configuration: dict[str, Any]
    layers: tuple[tuple[tarfile.TarInfo, ...], ...]
    digest: str
    size: int

    @property
    def entries(self) -> dict[str, tarfile.TarInfo]:
        """What the image holds, by path."""
        return {entry.name: entry for layer in self.layers for entry in layer}

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.configuration["config"]["Env"])


def read_image(directory: Path) -> Image:
    """The image that `make image` wrote to `directory`."""
    (file,) = directory.glob("*.oci.tar")
    (bill,) = directory.glob("*.cdx.json")
    (digest,) = directory.glob("*.digest")
    with tarfile.open(file) as archive:
        assert json.loads(_read(archive, "oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        index = json.loads(_read(archive, "index.json"))
        (described,) = index["manifests"]
        assert described["digest"] == digest.read_text().strip()
        manifest = json.loads(_read_blob(archive, described))
        configuration = json.loads(_read_blob(archive, manifest["config"]))
        layers = [_list_layer(archive, layer) for layer in manifest["layers"]]
    diffs = [layer["digest"] for layer in manifest["layers"]]
    assert configuration["rootfs"]["diff_ids"] == diffs, "an uncompressed layer's digest is its diff id"
    return Image(
        archive=file, bill=json.loads(bill.read_text()), index=index, manifest=manifest, configuration=configuration,
        layers=tuple(layers), digest=described["digest"], size=sum(layer["size"] for layer in manifest["layers"]),
    )  # fmt: skip


def unpack_image(image: Image, root: Path) -> None:
    """Lay the layers over each other in `root`, as a container runtime does."""
    root.mkdir()
    with tarfile.open(image.archive) as archive:
        for layer in image.manifest["layers"]:
            name = f"blobs/{layer['digest'].replace(':', '/')}"
            content = archive.extractfile(name)
            assert content
            subprocess.run(["tar", "-xpf", "-", "-C", root], input=content.read(), check=True)


def hash_tree(root: Path) -> dict[str, str]:
    """Kind, mode and content of everything below `root`, by path."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[path.relative_to(root).as_posix()] = f"{mode:o} {hashlib.sha256(content).hexdigest()}"
    return found


def _list_layer(archive: tarfile.TarFile, layer: dict[str, Any]) -> tuple[tarfile.TarInfo, ...]:
    content = archive.extractfile(f"blobs/{layer['digest'].replace(':', '/')}")
    assert content
    with tarfile.open(fileobj=content) as inner:
        return tuple(inner.getmembers())


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    assert content, name
    return content.read()


def _read_blob(archive: tarfile.TarFile, described: dict[str, Any]) -> bytes:
    assert re.fullmatch("sha256:[0-9a-f]{64}", described["digest"])
    content = _read(archive, f"blobs/{described['digest'].replace(':', '/')}")
    assert len(content) == described["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == described["digest"]
    return content
