"""The images of the tree and their lock: `python -m k8s.tools.images list | check [--release] | record NAME DIGEST`.

images.lock names every image that we do not build, by tag and digest. A digest that was only seen in somebody's public
manifests is not `resolved`: it is carried, so that a cluster pulls that and nothing else, but a release refuses it until
`images-resolve.sh` has asked the registry itself. Our own image is not locked: `make image` prints its digest, and an overlay
carries it.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from cyclopts import App

from k8s.tools.rendering import TREE, Manifest, containers_of, pod_of, read_yaml, render

FILE = TREE / "images.lock"
OVERLAYS = ("overlays/staging", "overlays/production", "overlays/minimal")
_OURS = "stockade"
_HEADER = """\
# Every image that we do not build. `seen` says where the digest comes from; `resolved` says that a registry was asked for
# it. `python -m k8s.tools.images check` compares this with the manifests, images-resolve.sh asks the registries.
"""
_REFERENCE = re.compile(r"(?P<name>[^@]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")

app = App(name="k8s.tools.images", help=__doc__)


@dataclass(frozen=True, order=True)
class Reference:
    """An image as a manifest names it, with its registry."""

    name: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True)
class LockedImage:
    name: str
    tag: str
    digest: str
    seen: str
    resolved: bool

    @property
    def reference(self) -> Reference:
        return Reference(self.name, self.tag, self.digest)


def read_lock(path: Path = FILE) -> list[LockedImage]:
    (document,) = read_yaml(path.read_text())
    return [LockedImage(**entry) for entry in document["images"]]


def find_images(manifests: Iterable[Manifest]) -> set[Reference]:
    """The images of all containers, but for our own."""
    texts = {
        container["image"] for manifest in manifests if (pod := pod_of(manifest)) for container in containers_of(pod)
    }
    return {reference for text in texts if (reference := parse(text)).name.rpartition("/")[2] != _OURS}


def parse(text: str) -> Reference:
    """A reference with the registry and the library that Docker's short names leave out."""
    match = _REFERENCE.fullmatch(text)
    assert match, f"{text!r} is no image"
    name = match["name"]
    if "." not in name.partition("/")[0]:
        name = f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
    return Reference(name, match["tag"] or "", match["digest"] or "")


def find_drift(used: set[Reference], locked: Iterable[LockedImage]) -> list[str]:
    """One line for each image that manifests and lock do not say in the same way."""
    listed = {image.reference for image in locked}
    return [
        *(f"{image} is in a manifest and not in images.lock" for image in sorted(used - listed)),
        *(f"{image} is in images.lock and in no manifest" for image in sorted(listed - used)),
    ]


def find_unresolved(locked: Iterable[LockedImage]) -> list[str]:
    return [
        f"{image.reference} is not resolved: {'seen in ' + image.seen if image.digest else 'no digest is known'}"
        for image in locked
        if not (image.resolved and image.digest)
    ]


@app.command(name="list")
def list_images() -> None:
    """Print every locked image as NAME:TAG, one a line."""
    for image in read_lock():
        print(f"{image.name}:{image.tag}")


@app.command
def check(*, release: bool = False) -> None:
    """Compare images.lock with the overlays; with --release, refuse a digest that no registry has confirmed."""
    locked = read_lock()
    used = {image for overlay in OVERLAYS for image in find_images(render(overlay))}
    findings = find_drift(used, locked) + (find_unresolved(locked) if release else [])
    print("\n".join(findings) or f"images: {len(locked)} images, all in order")
    sys.exit(1 if findings else 0)


@app.command
def record(name: str, digest: str, *, tree: Path = TREE) -> None:
    """Write the digest that a registry gave for an image of the lock into the lock and into every manifest."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        sys.exit(f"images: {digest!r} is not a digest")
    locked = read_lock(tree / FILE.name)
    old = next((image for image in locked if f"{image.name}:{image.tag}" == name), None)
    if old is None:
        sys.exit(f"images: {name} is not in images.lock")
    for path in sorted(tree.rglob("*.yaml")):
        text = path.read_text()
        if (pinned := _pin(text, old, digest)) != text:
            path.write_text(pinned)
    new = LockedImage(old.name, old.tag, digest, seen="its registry", resolved=True)
    write_lock([new if image is old else image for image in locked], tree / FILE.name)
    print(f"images: {name} is {digest}" + ("" if digest == old.digest else f", was {old.digest or 'unknown'}"))


def write_lock(images: Iterable[LockedImage], path: Path = FILE) -> None:
    entries = [asdict(image) for image in images]
    path.write_text(_HEADER + yaml.safe_dump({"images": entries}, sort_keys=False, width=120))


def _pin(text: str, image: LockedImage, digest: str) -> str:
    if image.digest:
        return text.replace(image.digest, digest)
    return re.sub(
        rf"(image: {re.escape(image.name)}:{re.escape(image.tag)})$", rf"\1@{digest}", text, flags=re.MULTILINE
    )


if __name__ == "__main__":
    app()
