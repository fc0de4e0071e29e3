"""Images for the real nodes, from what this machine can have without a container registry.

Ours is the one of `make image`. What else a node needs, and could not pull here, is put together from Debian's packages.
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """A name as a manifest says it, layers as uncompressed tars, and what runs."""

    name: str
    layers: list[bytes]
    entrypoint: list[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    def write(self, target: Path) -> Path:
        """Write an archive that `ctr images import` takes: an OCI image layout in a tar."""
        settings = {
            "Entrypoint": self.entrypoint,
            "Env": [f"{name}={value}" for name, value in self.environment.items()],
        }
        rootfs = {"type": "layers", "diff_ids": [_digest(layer) for layer in self.layers]}
        config = _encode({"architecture": "amd64", "os": "linux", "config": settings, "rootfs": rootfs})
        layers = [_describe("layer.v1.tar", layer) for layer in self.layers]
        manifest = _encode({"schemaVersion": 2, "config": _describe("config.v1+json", config), "layers": layers})
        top = _describe("manifest.v1+json", manifest) | {"annotations": {"io.containerd.image.name": self.name}}
        with tarfile.open(target, "w") as archive:
            _add(archive, "oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
            _add(archive, "index.json", _encode({"schemaVersion": 2, "manifests": [top]}))
            for blob in (config, manifest, *self.layers):
                _add(archive, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)
        return target


def make_pause(name: str) -> Image:
    """What holds the network of a pod: a process that waits. Debian's catatonit is one, without a library."""
    program = Path(shutil.which("catatonit") or "/usr/bin/catatonit")
    return Image(name, [pack([("pause", program.read_bytes(), 0o755)])], ["/pause", "-P"])


def pack(files: Iterable[tuple[str, bytes, int]]) -> bytes:
    """A layer of these files (path, content, mode), all root's."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content, mode in files:
            _add(archive, path, content, mode)
    return stream.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _describe(kind: str, content: bytes) -> dict[str, object]:
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _encode(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
