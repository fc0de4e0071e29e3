"""What rendering does not show: which files there are, and what a kustomization may not do. Files are given as path → text."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from k8s.tools.rendering import read_yaml
from stockade.targets import NAMES
from tests.k8s.trees import Findings
from tests.tidiness import find_machine_names

Files = Mapping[str, str]
"""Path below k8s/ and text."""

SERVICE_FILES = {
    f"{kind}.yaml"
    for kind in (
        "deployment",
        "service",
        "hpa",
        "servicemonitor",
        "networkpolicy",
        "serviceaccount",
        "pdb",
        "kustomization",
    )
}
"""The specification's six, and the two that they cannot work without."""
SPECIFIED = (
    "base/namespaces/inventory-system.yaml",
    "base/gateway/kustomization.yaml",
    "base/database/statefulset.yaml",
    "base/ingress/kustomization.yaml",
)
KINDS = {"hpa": "HorizontalPodAutoscaler", "pdb": "PodDisruptionBudget"}
"""File names that are not the kind in small letters."""

_REWRITING = (
    "commonLabels",
    "labels",
    "namePrefix",
    "nameSuffix",
    "commonAnnotations",
    "vars",
    "patchesStrategicMerge",
)
_FIELDS = ("resources", "components", "patches", "replacements", "transformers", "generators", "configurations", "crds")


def find_missing_files(files: Files) -> Findings:
    """A directory for each service with exactly its files, and the other paths that the specification names."""
    findings = [f"{path} is missing" for path in SPECIFIED if path not in files]
    for name in NAMES:
        folder = f"base/services/{name}/"
        there = {path.removeprefix(folder) for path in files if path.startswith(folder)}
        findings += [f"{folder}{path} is missing" for path in sorted(SERVICE_FILES - there)]
        findings += [f"{folder}{path} is one too many" for path in sorted(there - SERVICE_FILES)]
    return findings


def find_misfiled_objects(files: Files) -> Findings:
    """In a service's directory a file holds one object, of the kind that its name says."""
    findings: Findings = []
    for path, text in files.items():
        stem = PurePosixPath(path).stem
        if path.startswith("base/services/") and path.count("/") == 3 and stem != "kustomization":
            kinds = [document["kind"] for document in read_yaml(text)]
            if [kind.lower() for kind in kinds] != [KINDS.get(stem, stem).lower()]:
                findings.append(f"{path} holds {', '.join(kinds) or 'nothing'}")
    return findings


def find_unreadable_files(files: Files) -> Findings:
    """Every YAML file is YAML in which no key is said twice: kustomize keeps the last one without a word."""
    findings: Findings = []
    for path, text in files.items():
        try:
            read_yaml(text if path.endswith(".yaml") else "")
        except yaml.YAMLError as error:
            findings.append(f"{path}: {error}")
    return findings


def find_rewriting(files: Files) -> Findings:
    """No kustomization rewrites labels or names: it would change the peers of NetworkPolicies as well."""
    return [
        f"{path} uses {field}"
        for path, written in _kustomizations(files).items()
        for field in _REWRITING
        if field in written
    ]


def find_orphans(files: Files) -> Findings:
    """Every YAML file in base, components and overlays is named by the kustomization beside it, so that it is applied."""
    named = {
        str(PurePosixPath(path).parent / entry)
        for path, written in _kustomizations(files).items()
        for entry in _entries_of(written)
    }
    return [
        f"{path} is named by no kustomization"
        for path in sorted(files)
        if path.startswith(("base/", "components/", "overlays/"))
        and path.endswith(".yaml")
        and not path.endswith("kustomization.yaml")
        and path not in named
    ]


def find_bare_directories(files: Files) -> Findings:
    """Every directory with manifests is a kustomization."""
    folders = {str(PurePosixPath(path).parent) for path in files if path.endswith(".yaml")}
    return [
        f"{folder} is no kustomization"
        for folder in sorted(folders)
        if folder.startswith(("base", "components", "overlays")) and f"{folder}/kustomization.yaml" not in files
    ]


def find_scattered_images(files: Files) -> Findings:
    """An overlay says our image once, and what it is made of does not say it again."""
    findings: Findings = []
    for path, written in _kustomizations(files).items():
        entries = [it for it in written.get("images", []) if it["name"] == "stockade"]
        if path.startswith("overlays/") and len(entries) != 1:
            findings.append(f"{path} says the image {len(entries)} times")
        if entries and (path.startswith("base/") or written["kind"] == "Component"):
            findings.append(f"{path} rewrites the image")
        findings += [f"{path}: the image has no version" for it in entries if it.get("newTag", "latest") == "latest"]
    return findings


def find_local_names(files: Files) -> Findings:
    """No path of a machine and no host of a package registry."""
    return find_machine_names(dict(files))


def _kustomizations(files: Files) -> dict[str, dict[str, Any]]:
    return {path: yaml.safe_load(text) for path, text in files.items() if path.endswith("kustomization.yaml")}


def _entries_of(written: Mapping[str, Any]) -> list[str]:
    entries = [entry for field in _FIELDS for entry in written.get(field, [])]
    return [entry if isinstance(entry, str) else entry.get("path", "") for entry in entries]
