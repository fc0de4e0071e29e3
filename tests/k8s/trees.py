"""What is checked: the base, each overlay, and the base with each component that no overlay uses; all of it parsed once.

A rule is a function of manifests that returns one line for each breach and never raises, so that it can judge a tree that was
broken on purpose as well as our own.
"""

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from k8s.tools.rendering import TREE, Manifest, containers_of, pod_of, render

Findings = list[str]
Rule = Callable[[list[Manifest]], Findings]

LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet")
HAND_APPLIED = {"base": "base/database/restore", "base with archive-copy": "components/archive-copy/fetch"}
"""What a person applies in an emergency, and to which tree."""
OVERLAYS = ("overlays/staging", "overlays/production", "overlays/minimal")


@dataclass(frozen=True)
class Workload:
    """What makes pods: a Deployment, a StatefulSet, a DaemonSet, a Job or a CronJob."""

    manifest: Manifest
    pod: Manifest

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def name(self) -> str:
        return self.manifest["metadata"]["name"]

    @property
    def title(self) -> str:
        """How a finding calls it."""
        return title_of(self.manifest)

    @property
    def namespace(self) -> str:
        return namespace_of(self.manifest)

    @property
    def labels(self) -> Mapping[str, str]:
        """Those of its pods, which are what selectors see."""
        return self.pod.get("metadata", {}).get("labels", {})

    @property
    def spec(self) -> Mapping[str, Any]:
        """That of its pods."""
        return self.pod["spec"]

    @property
    def containers(self) -> list[Manifest]:
        """All of them, those that run first included."""
        return containers_of(self.pod)

    @property
    def is_long_running(self) -> bool:
        return self.kind in LONG_RUNNING

    @property
    def is_service(self) -> bool:
        """Whether it is one of the five services, which share components/service."""
        return self.manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "service"


@functools.cache
def render_all() -> Mapping[str, list[Manifest]]:
    """The manifests of every tree that is checked, by name. They are shared: copy before you change one."""
    trees = {directory: render(directory) for directory in ("base", *OVERLAYS)}
    trees |= {f"base with {name}": compose("base", name) for name in find_unused_components()}
    for tree, directory in HAND_APPLIED.items():
        # These come to a tree that is there already, and may share objects with it.
        trees[f"{tree} and {directory}"] = trees[tree] + [it for it in render(directory) if it not in trees[tree]]
    return trees


def find_unused_components() -> list[str]:
    """The components that stand by themselves, for a user's own overlay: nobody renders them, so nobody would check them."""
    used: set[Path] = set()
    for path in TREE.rglob("kustomization.yaml"):
        written = yaml.safe_load(path.read_text())
        used |= {(path.parent / entry).resolve() for entry in written.get("components", [])}
    return sorted(path.name for path in (TREE / "components").iterdir() if path.is_dir() and path.resolve() not in used)


def compose(directory: str, component: str) -> list[Manifest]:
    """The manifests of a directory with a component, as an overlay of a user would put them together."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = os.path.relpath(TREE, Path(scratch).resolve())
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{tree}/{directory}"],
            "components": [f"{tree}/components/{component}"],
        }
        (Path(scratch) / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return render(Path(scratch).resolve())


def workloads_of(manifests: Iterable[Manifest]) -> list[Workload]:
    return [Workload(manifest, pod) for manifest in manifests if (pod := pod_of(manifest))]


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def find(manifests: Iterable[Manifest], kind: str, name: str, *, namespace: str = "") -> Manifest:
    """The one object of that kind and name."""
    (found,) = [
        it for it in of_kind(manifests, kind) if it["metadata"]["name"] == name and namespace in ("", namespace_of(it))
    ]
    return found


def title_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def namespace_of(manifest: Manifest) -> str:
    return manifest["metadata"].get("namespace", "")


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector, written by hand as matchLabels, matches. An empty one matches everything, as the API says."""
    return "matchExpressions" not in selector and selector.get("matchLabels", {}).items() <= labels.items()
