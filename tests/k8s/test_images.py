"""The lock of images agrees with the manifests, and a release refuses what no registry has confirmed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from k8s.tools.images import (
    FILE,
    OVERLAYS,
    Reference,
    find_drift,
    find_images,
    find_unresolved,
    parse,
    read_lock,
    record,
)
from k8s.tools.rendering import TREE, containers_of, pod_of, render

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def used() -> set[Reference]:
    return {image for overlay in OVERLAYS for image in find_images(render(overlay))}


def test_manifests_and_lock_name_the_same_images(used: set[Reference]) -> None:
    assert used
    assert find_drift(used, read_lock()) == []


def test_an_image_that_only_one_of_them_names_is_found(used: set[Reference]) -> None:
    locked = read_lock()
    assert len(find_drift(used, locked[1:])) == 1
    assert len(find_drift(used | {parse("alpine:latest")}, locked)) == 1
    assert len(find_drift(used, [replace(locked[0], digest=DIGEST), *locked[1:]])) == 2


def test_every_overlay_names_our_image_in_one_place() -> None:
    for overlay in OVERLAYS:
        pods = [pod for manifest in render(overlay) if (pod := pod_of(manifest))]
        ours = {c["image"] for pod in pods for c in containers_of(pod) if "stockade" in c["image"]}
        assert len(ours) == 1, overlay


def test_a_release_wants_every_digest_confirmed() -> None:
    (image, *_) = read_lock()
    assert find_unresolved([replace(image, digest=DIGEST, resolved=True)]) == []
    assert len(find_unresolved([replace(image, digest=DIGEST, resolved=False)])) == 1
    assert len(find_unresolved([replace(image, digest="", resolved=True)])) == 1


@pytest.mark.parametrize("name", [f"{image.name}:{image.tag}" for image in read_lock()])
def test_a_resolved_digest_is_written_into_lock_and_manifests(tmp_path: Path, name: str) -> None:
    tree = shutil.copytree(TREE, tmp_path / "k8s")
    record(name, DIGEST, tree=tree)
    locked = read_lock(tree / FILE.name)
    assert [f"{image.name}:{image.tag}" for image in locked if image.resolved] == [name]
    used = find_images(render(tree / "overlays/production"))
    assert f"{name}@{DIGEST}" in map(str, used)
    assert find_drift(used, locked) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kong:3.9.3", "docker.io/library/kong:3.9.3"),
        ("grafana/grafana:13", "docker.io/grafana/grafana:13"),
        (f"quay.io/a/b:1@{DIGEST}", f"quay.io/a/b:1@{DIGEST}"),
    ],
)
def test_short_names_mean_what_docker_means(text: str, expected: str) -> None:
    assert str(parse(text)) == expected
