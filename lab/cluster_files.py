"""What k8s/cluster tells people to put on a control plane, put there: files by its README, flags by its kubeadm file.

So the API server of the lab has our audit policy, admission and encryption as their users get them, and not a second
version of each that only tests have seen.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.places import PROJECT

FILES = PROJECT / "k8s/cluster"

# Where the files of a real control plane are, as the kubeadm file writes it.
_INSTALLED = "/etc/kubernetes/stockade"
_KEYS = "/etc/kubernetes/pki"
_LOGS = "/var/log/kubernetes/audit"


def install_cluster_files(directory: Path) -> None:
    """Copy them, and make a key for Secrets with the script that is given for it."""
    directory.mkdir(mode=0o700)
    for name in ("audit-policy.yaml", "admission.yaml", "authentication.yaml"):
        shutil.copy(FILES / name, directory / name)
    made = subprocess.run(
        ["sh", str(FILES / "encryption.sh")], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    path = directory / "encryption.yaml"
    path.touch(mode=0o600)
    path.write_text(made)


def read_flags(component: str, *, installed: Path, keys: Path, logs: Path) -> dict[str, str]:
    """The flags that the kubeadm file gives to `apiServer`, `controllerManager` or `scheduler`, with our directories."""
    moved: Mapping[str, Path] = {_INSTALLED: installed, _KEYS: keys, _LOGS: logs}
    flags: dict[str, str] = {}
    for argument in _read_kubeadm()[component]["extraArgs"]:
        value = str(argument["value"])
        for theirs, ours in moved.items():
            value = value.replace(theirs, str(ours))
        flags[argument["name"]] = value
    return flags


def _read_kubeadm() -> dict[str, Any]:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((FILES / "kubeadm/cluster.yaml").read_text()))
    (cluster,) = [document for document in documents if document["kind"] == "ClusterConfiguration"]
    return cluster
