"""The archive: an OCI image layout in one tar, which containerd, podman, skopeo and docker load.

https://github.com/opencontainers/image-spec says what the documents in it mean.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from image.debian import ARCHITECTURE, SUITE
from image.layers import Layer
from image.rootfs import ENTRYPOINT, HOME, USER

PORT = 8080
ENVIRONMENT = {
    "PATH": f"/{HOME}/bin:/usr/bin",
    "LANG": "C.UTF-8",
    # A container that listens on its own loopback only cannot be reached by anybody.
    "STOCKADE_HOST": "0.0.0.0",  # noqa: S104
}

_TYPE = "application/vnd.oci.image"


@dataclass(frozen=True)
class Document:
    """A JSON document of the layout, as the bytes that its digest is of."""

    media_type: str
    content: bytes

    @classmethod
    def of(cls, media_type: str, value: Mapping[str, Any]) -> "Document":
        return cls(media_type, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": f"sha256:{self.sha256}", "size": len(self.content)}


def write_archive(file: Path, layers: Sequence[Layer], *, version: str, revision: str | None, epoch: int) -> str:
    """Write the image `stockade` in this version to `file`; its digest, as `sha256:…`.

    `revision` is the commit to name in the labels. It is part of the digest, so leave it out where equal content
    should have equal digests.
    """
    labels = _label(version, revision)
    configuration = Document.of(f"{_TYPE}.config.v1+json", _configure(layers, labels, epoch))
    manifest = Document.of(
        f"{_TYPE}.manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": configuration.descriptor,
            "layers": [
                {"mediaType": f"{_TYPE}.layer.v1.tar", "digest": f"sha256:{layer.sha256}", "size": layer.size}
                for layer in layers
            ],
            "annotations": labels,
        },
    )
    index = Document.of(f"{_TYPE}.index.v1+json", _index(manifest, version))
    with tarfile.open(file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}\n', epoch)
        _add(archive, "index.json", index.content, epoch)
        for document in (manifest, configuration):
            _add(archive, f"blobs/sha256/{document.sha256}", document.content, epoch)
        for layer in layers:
            with layer.file.open("rb") as content:
                entry = _entry(f"blobs/sha256/{layer.sha256}", layer.size, epoch)
                archive.addfile(entry, content)
    return f"sha256:{manifest.sha256}"


def _label(version: str, revision: str | None) -> dict[str, str]:
    labels = {
        "title": "stockade",
        "description": "Inventory stock management: five services, of which the argument picks one.",
        "version": version,
        "licenses": "Apache-2.0",
        "vendor": "The Stockade authors",
        "base.name": f"debian:{SUITE}",
        **({"revision": revision} if revision else {}),
    }
    return {f"org.opencontainers.image.{name}": value for name, value in labels.items()}


def _configure(layers: Sequence[Layer], labels: Mapping[str, str], epoch: int) -> dict[str, Any]:
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "created": created,
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "ExposedPorts": {f"{PORT}/tcp": {}},
            "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "Entrypoint": [ENTRYPOINT],
            "Cmd": ["--help"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": dict(labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in layers]},
        "history": [{"created": created, "created_by": "make image", "comment": layer.title} for layer in layers],
    }


def _index(manifest: Document, version: str) -> dict[str, Any]:
    # The second name is what containerd calls the image after an import, and what `image: stockade:…` means in a pod.
    names = {
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": f"docker.io/library/stockade:{version}",
    }
    platform = {"architecture": ARCHITECTURE, "os": "linux"}
    return {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.index.v1+json",
        "manifests": [{**manifest.descriptor, "platform": platform, "annotations": names}],
    }


def _add(archive: tarfile.TarFile, name: str, content: bytes, epoch: int) -> None:
    archive.addfile(_entry(name, len(content), epoch), io.BytesIO(content))


def _entry(name: str, size: int, epoch: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, epoch, 0o644
    return entry
