"""What the audit log keeps of an action: enough to say who did what, and never a secret."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.cluster import Cluster
from lab.kubectl import Kubectl, KubectlError
from tests.cluster.deployment import Deployed

Event = dict[str, Any]

_SCOPE = "--namespace=inventory-system"


def _create_secret(kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "audited", _SCOPE, "--from-literal=value=never-in-the-log")


def _read_secret(kubectl: Kubectl) -> None:
    kubectl("get", "secret", "audited", _SCOPE)


def _delete_secret(kubectl: Kubectl) -> None:
    kubectl("delete", "secret", "audited", _SCOPE)


def _ask_for_a_token(kubectl: Kubectl) -> None:
    kubectl("create", "token", "user-service", _SCOPE)


def _open_a_shell(kubectl: Kubectl) -> None:
    # A simulated node runs nothing to open one in. That it was asked for is what counts.
    with pytest.raises(KubectlError):
        kubectl("exec", "postgres-0", _SCOPE, "--container=server", "--", "sh", timeout_s=20)


def _change_permissions(kubectl: Kubectl) -> None:
    kubectl("create", "role", "audited", _SCOPE, "--verb=get", "--resource=pods")
    kubectl("delete", "role", "audited", _SCOPE)


def _open_the_network(kubectl: Kubectl) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "audited", "namespace": "inventory-system"},
        "spec": {"podSelector": {"matchLabels": {"app": "nobody"}}},
    }
    kubectl.apply(json.dumps(policy))
    kubectl("delete", "networkpolicy", "audited", _SCOPE)


def _change_a_workload(kubectl: Kubectl) -> None:
    kubectl("annotate", "deployment", "user-service", _SCOPE, "lab/audited=yes", "--overwrite")
    kubectl("annotate", "deployment", "user-service", _SCOPE, "lab/audited-")


def _read_pods(kubectl: Kubectl) -> None:
    kubectl("get", "pods", _SCOPE)


# An action, what its event says (verb, resource, subresource), and how much of it is kept.
ACTIONS: list[tuple[Callable[[Kubectl], None], tuple[str, str, str], str]] = [
    (_create_secret, ("create", "secrets", ""), "Metadata"),
    (_read_secret, ("get", "secrets", ""), "Metadata"),
    (_delete_secret, ("delete", "secrets", ""), "Metadata"),
    (_ask_for_a_token, ("create", "serviceaccounts", "token"), "Metadata"),
    (_open_a_shell, ("get", "pods", "exec"), "Request"),
    (_change_permissions, ("create", "roles", ""), "RequestResponse"),
    (_change_permissions, ("delete", "roles", ""), "RequestResponse"),
    (_open_the_network, ("patch", "networkpolicies", ""), "RequestResponse"),
    (_change_a_workload, ("patch", "deployments", ""), "Request"),
    (_read_pods, ("list", "pods", ""), "Metadata"),
]


@pytest.mark.parametrize(("act", "described", "level"), ACTIONS, ids=["-".join(filter(None, a[1])) for a in ACTIONS])
def test_an_action_is_recorded_at_its_level(
    cluster: Cluster, kubectl: Kubectl, deployed: Deployed, act, described, level
) -> None:
    start = cluster.control_plane.audit_log.stat().st_size
    act(kubectl)
    event = _wait_for(cluster, start, lambda event: _describe(event) == described and _is_ours(event))
    assert event["level"] == level
    assert event["sourceIPs"]
    assert level != "Metadata" or not {"requestObject", "responseObject"} & event.keys()
    assert level != "RequestResponse" or "responseObject" in event


def test_a_shell_is_recorded_with_its_command(cluster: Cluster, kubectl: Kubectl, deployed: Deployed) -> None:
    start = cluster.control_plane.audit_log.stat().st_size
    _open_a_shell(kubectl)
    event = _wait_for(cluster, start, lambda event: _describe(event)[1:] == ("pods", "exec"))
    assert "command=sh" in event["requestURI"]
    assert event["objectRef"]["name"] == "postgres-0"


def test_no_event_carries_what_it_must_not(cluster: Cluster, kubectl: Kubectl, deployed: Deployed) -> None:
    token = kubectl("create", "token", "user-service", _SCOPE).strip()
    assert token.count(".") == 2
    kubectl("get", "pods", _SCOPE)
    text = cluster.control_plane.audit_log.read_text()
    assert token not in text
    assert token.split(".")[2] not in text
    for event in map(json.loads, text.splitlines()):
        if event.get("objectRef", {}).get("resource") == "secrets":
            assert event["level"] == "Metadata"


@pytest.mark.parametrize("user", ["system:kube-scheduler", "system:kube-controller-manager", "system:apiserver"])
def test_what_the_control_plane_reads_all_day_is_left_out(cluster: Cluster, deployed: Deployed, user: str) -> None:
    """But for what may hold secrets or become a credential, whose every reading is kept."""
    own = [event for event in _read(cluster, 0) if event["user"].get("username") == user]
    reads = {_describe(event)[1] for event in own if event["verb"] in {"get", "list", "watch"}}
    assert reads <= {"secrets", "configmaps", "certificatesigningrequests"}
    assert user == "system:apiserver" or any(event["verb"] in {"create", "patch", "update"} for event in own)


def _is_ours(event: Event) -> bool:
    return event["user"].get("username") == "lab-admin" and event["stage"] == "ResponseComplete"


def _describe(event: Event) -> tuple[str, str, str]:
    reference = event.get("objectRef", {})
    return event["verb"], reference.get("resource", ""), reference.get("subresource", "")


def _wait_for(cluster: Cluster, start: int, is_wanted: Callable[[Event], bool]) -> Event:
    """The first such event that was written after the log had `start` bytes."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for event in _read(cluster, start):
            if is_wanted(event):
                return event
        time.sleep(0.2)
    pytest.fail("the action left no such event")


def _read(cluster: Cluster, start: int) -> list[Event]:
    with cluster.control_plane.audit_log.open("rb") as log:
        log.seek(start)
        # The last line may still be half written.
        return [json.loads(line) for line in log if line.endswith(b"\n")]
