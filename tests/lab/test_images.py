"""An image archive is what the OCI says it is: every document named by the digest of its bytes, and nothing else in it."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from lab.images import Image, pack


def test_every_blob_is_named_by_its_digest_and_reached_from_the_index(tmp_path: Path) -> None:
    image = Image("example.invalid/tool:1", [pack([("tool", b"#!/bin/sh\n", 0o755)])], ["/tool"], {"LANG": "C.UTF-8"})
    blobs = _read(image.write(tmp_path / "image.tar"))
    names = {name.rsplit("/", 1)[1]: content for name, content in blobs.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in names.items())

    (top,) = json.loads(blobs["index.json"])["manifests"]
    assert top["annotations"] == {"io.containerd.image.name": "example.invalid/tool:1"}
    manifest = json.loads(names.pop(_hex(top)))
    config = json.loads(names.pop(_hex(manifest["config"])))
    assert config["config"] == {"Entrypoint": ["/tool"], "Env": ["LANG=C.UTF-8"]}
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert [names.pop(_hex(layer)) for layer in manifest["layers"]] == image.layers
    assert names == {}


def test_a_layer_keeps_what_may_run(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack([("bin/tool", b"x", 0o755), ("etc/tool", b"y", 0o644)]))) as layer:
        assert {entry.name: (entry.mode, entry.uid) for entry in layer} == {
            "bin/tool": (0o755, 0),
            "etc/tool": (0o644, 0),
        }


def _read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: stream.read() for name, stream in found.items() if stream is not None}


def _hex(description) -> str:
    return description["digest"].removeprefix("sha256:")
