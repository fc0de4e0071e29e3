"""What the namespaces refuse, and that they refuse it for our reason and not for another."""

import copy
import json
from typing import Any

import pytest

from lab.kubectl import Kubectl, KubectlError
from tests.cluster.deployment import NAMESPACES, Deployed

_CONTAINER: dict[str, Any] = {
    "name": "server",
    "image": "stockade:0.1.0",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
_POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_CONTAINER],
    },
}

# What is changed of a pod that is allowed (a path, and a value there), and the words of Pod Security for it.
BREACHES: list[tuple[str, Any, str]] = [
    ("spec.containers.0.securityContext", {"privileged": True}, "privileged"),
    ("spec.containers.0.securityContext.allowPrivilegeEscalation", True, "allowPrivilegeEscalation != false"),
    ("spec.containers.0.securityContext.capabilities", {"drop": []}, "unrestricted capabilities"),
    ("spec.containers.0.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}, "NET_ADMIN"),
    ("spec.containers.0.securityContext.runAsUser", 0, "runAsUser=0"),
    ("spec.containers.0.ports", [{"containerPort": 8080, "hostPort": 8080}], "hostPort"),
    ("spec.securityContext.seccompProfile.type", "Unconfined", "seccompProfile"),
    ("spec.securityContext.runAsNonRoot", False, "runAsNonRoot != true"),
    ("spec.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "forbidden sysctls"),
    ("spec.hostNetwork", True, "host namespaces"),
    ("spec.hostPID", True, "host namespaces"),
    ("spec.hostIPC", True, "host namespaces"),
    ("spec.volumes", [{"name": "host", "hostPath": {"path": "/"}}], "hostPath"),
]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_restricted_pod_is_admitted(kubectl: Kubectl, deployed: Deployed, namespace: str) -> None:
    assert _try(kubectl, _POD, namespace)["spec"]["containers"][0]["name"] == "server"


@pytest.mark.parametrize(("path", "value", "reason"), BREACHES, ids=[f"{p}={v}" for p, v, _ in BREACHES])
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_pod_that_wants_more_is_refused(
    kubectl: Kubectl, deployed: Deployed, namespace: str, path: str, value: object, reason: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        _try(kubectl, _change(path, value), namespace)
    assert 'violates PodSecurity "restricted:v1.35"' in str(refusal.value)
    assert reason in str(refusal.value)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_container_without_bounds_gets_them(kubectl: Kubectl, deployed: Deployed, namespace: str) -> None:
    container = _try(kubectl, _POD, namespace)["spec"]["containers"][0]
    (bounds,) = kubectl.get("limitrange", "defaults", f"--namespace={namespace}")["spec"]["limits"]
    assert container["resources"] == {"limits": bounds["default"], "requests": bounds["defaultRequest"]}
    assert {"cpu", "memory"} <= bounds["defaultRequest"].keys()
    assert "memory" in bounds["default"]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_no_pod_gets_a_token_by_default(kubectl: Kubectl, deployed: Deployed, namespace: str) -> None:
    pod = _try(kubectl, _POD, namespace)
    assert pod["spec"]["serviceAccountName"] == "default"
    assert "volumes" not in pod["spec"]


def test_a_container_larger_than_any_of_ours_is_refused(kubectl: Kubectl, deployed: Deployed) -> None:
    with pytest.raises(KubectlError, match="maximum memory usage per Container is 8Gi"):
        _try(kubectl, _change("spec.containers.0.resources", {"limits": {"memory": "9Gi"}}))


@pytest.mark.parametrize(
    ("resources", "exceeded"),
    [({"requests": {"cpu": "13"}}, "requests.cpu"), ({"requests": {"cpu": "11"}}, "requests.cpu")],
)
def test_the_quota_bounds_what_pods_ask_for(
    kubectl: Kubectl, deployed: Deployed, resources: dict[str, Any], exceeded: str
) -> None:
    """Eleven cores would fit into an empty namespace, but not beside what runs there."""
    with pytest.raises(KubectlError, match=f"exceeded quota: bounds, requested: {exceeded}"):
        _try(kubectl, _change("spec.containers.0.resources", resources))


@pytest.mark.parametrize(("kind", "exceeded"), [("NodePort", "nodeports"), ("LoadBalancer", "loadbalancers")])
def test_nothing_of_the_services_is_reached_from_outside(
    kubectl: Kubectl, deployed: Deployed, kind: str, exceeded: str
) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hole"},
        "spec": {"type": kind, "selector": {"app": "user-service"}, "ports": [{"port": 80}]},
    }
    with pytest.raises(KubectlError, match=f"exceeded quota: bounds.*services.{exceeded}"):
        _try(kubectl, service)


def test_a_second_load_balancer_is_refused_at_the_edge(kubectl: Kubectl, deployed: Deployed) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "another-door"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "kong"}, "ports": [{"port": 80}]},
    }
    with pytest.raises(KubectlError, match="exceeded quota: bounds"):
        _try(kubectl, service, "inventory-edge")


def test_a_namespace_that_says_nothing_is_not_open(kubectl: Kubectl) -> None:
    """What admission.yaml of k8s/cluster adds: a careless namespace is refused the worst, and warned of the rest."""
    with pytest.raises(KubectlError, match=r'violates PodSecurity "baseline:v1\.35"'):
        _try(kubectl, _change("spec.hostPID", True), "default")
    careless = _change("spec.securityContext", {})
    assert _try(kubectl, careless, "default")["metadata"]["name"] == "probe"


def _try(kubectl: Kubectl, item: dict[str, Any], namespace: str = "inventory-system") -> Any:
    """What the API server would make of it. All of admission runs, and nothing is kept."""
    arguments = ("create", f"--namespace={namespace}", "--dry-run=server", "--output=json", "--filename=-")
    return json.loads(kubectl(*arguments, content=json.dumps(item)))


def _change(path: str, value: object) -> dict[str, Any]:
    pod = copy.deepcopy(_POD)
    *parents, last = path.split(".")
    place: Any = pod
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return pod
