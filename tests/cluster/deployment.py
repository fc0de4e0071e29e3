"""Bring k8s/base to an empty cluster as its README says: the two Secrets by hand, then deploy.sh, and deploy.sh again."""

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.cluster import Cluster
from lab.kubectl import Kubectl
from stockade.targets import SERVICES

TREE = Path(__file__).parents[2] / "k8s"
NAMESPACES = ("inventory-system", "inventory-edge")
SERVICE_NAMES = tuple(service.name for service in SERVICES)
SECRETS = ("postgres-secret", "jwt-secret", "database-roles", "service-secrets", "postgres-tls")

_DEPLOY_TIMEOUT_S = 600
# Pods of the simulated nodes take some seconds for each of their steps, and the autoscaler wants a second one of each.
_RUNNING_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Run:
    """How a script ended and what it said."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Deployed:
    """Three runs of deploy.sh (without the Secrets, with them, and once more), and the cluster after the last two."""

    without_secrets: Run
    first: Run
    second: Run
    before: dict[str, Any]
    after: dict[str, Any]
    secrets: Mapping[str, Mapping[str, str]]

    @property
    def secret_values(self) -> list[str]:
        """Every value that must stay secret, one line of each: a certificate has many."""
        public = {"host", "username", "tls.crt", "ca.crt"}
        values = [text for content in self.secrets.values() for key, text in content.items() if key not in public]
        return [max(value.splitlines(), key=len) for value in values]

    @property
    def changed(self) -> list[str]:
        """Names of the objects that are not as they were before they were applied again."""
        return [name for name, item in self.before.items() if self.after.get(name) != item]


def deploy(cluster: Cluster) -> Deployed:
    kubectl = cluster.kubectl
    without_secrets = run_script(cluster, "deploy.sh", "--definitions", str(cluster.definitions))
    _create_secret(kubectl, "jwt-secret", {"secret": secrets.token_hex(32)})
    credentials = {"host": "postgres.inventory-system.svc.cluster.local", "username": "postgres"}
    _create_secret(kubectl, "postgres-secret", credentials | {"password": secrets.token_hex(24)})
    first = run_script(cluster, "deploy.sh", "--definitions", str(cluster.definitions))
    assert first.code == 0, first
    wait_until_running(kubectl)
    before = _read_all(kubectl)
    second = run_script(cluster, "deploy.sh", "--definitions", str(cluster.definitions))
    return Deployed(without_secrets, first, second, before, _read_all(kubectl), _read_secrets(kubectl))


def run_script(cluster: Cluster, name: str, *arguments: str) -> Run:
    """Run a script of k8s/ as a person would, with kubectl on the PATH and the cluster in the KUBECONFIG."""
    environment = cluster.kubectl.environment
    environment["PATH"] = f"{cluster.kubectl.program.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(TREE / name), *arguments], env=environment, capture_output=True, text=True, timeout=_DEPLOY_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout, done.stderr)


def wait_until_running(kubectl: Kubectl) -> float:
    """Wait until every Deployment and StatefulSet has all its pods available, and two of each service."""
    return kubectl.wait_until(_is_running, "complete deployment", _RUNNING_TIMEOUT_S)


def read_rendered(kubectl: Kubectl, directory: str) -> list[Any]:
    """The objects that `kubectl kustomize k8s/DIRECTORY` prints."""
    return [item for item in yaml.safe_load_all(kubectl.render(TREE / directory)) if item]


def name_of(item: Any) -> str:
    """Kind, namespace and name: what tells one object from every other of this tree."""
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def _create_secret(kubectl: Kubectl, name: str, values: Mapping[str, str]) -> None:
    """By a file on standard input, as the README advises: a value on the command line stays in the shell's history."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "inventory-system"},
        "stringData": values,
    }
    kubectl("create", "--filename=-", content=json.dumps(secret))


def _read_secrets(kubectl: Kubectl) -> dict[str, dict[str, str]]:
    found = kubectl.get("secrets", "--namespace=inventory-system")
    return {
        item["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in item["data"].items()}
        for item in found
    }


def _is_running(kubectl: Kubectl) -> bool:
    workloads = kubectl.get("deployments,statefulsets", "--all-namespaces")
    return bool(workloads) and all(map(_is_complete, workloads))


def _is_complete(workload: Any) -> bool:
    status, wanted = workload["status"], workload["spec"]["replicas"]
    least = 2 if workload["metadata"]["name"] in SERVICE_NAMES else 1
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    return seen and wanted >= least and wanted == status.get("availableReplicas") == status.get("updatedReplicas")


def _read_all(kubectl: Kubectl) -> dict[str, Any]:
    """Every object of the base as the API server has it, without what its controllers report."""
    names = ["--filename=-", "--show-managed-fields", "--output=json"]
    answer = json.loads(kubectl("get", *names, content=kubectl.render(TREE / "base")))
    return {name_of(item): _strip(item) for item in answer["items"]}


def _strip(item: Any) -> Any:
    """Leave out status and whatever changes with it; keep what was asked for, by whom, and when."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "resourceVersion"}
    fields = [entry for entry in metadata.pop("managedFields", []) if "subresource" not in entry]
    return {key: value for key, value in item.items() if key not in {"status", "metadata"}} | {
        "metadata": metadata | {"managedFields": fields}
    }
