"""Updates and drains: how many pods of a service are available at every moment, not only before and after."""

import json
import secrets
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

from lab.fake_nodes import NODES
from lab.kubectl import Kubectl, KubectlError
from tests.cluster.deployment import SERVICE_NAMES, Deployed, wait_until_running
from tests.cluster.watching import Watched, watch

_ROLLOUT_TIMEOUT_S = 180.0
_SCOPE = "--namespace=inventory-system"
_AVAILABLE = ".status.availableReplicas"


@pytest.fixture
def empty_node(kubectl: Kubectl, deployed: Deployed) -> Generator[str]:
    """A node that a test may drain; it takes pods again afterwards."""
    wait_until_running(kubectl)
    yield NODES[0]
    kubectl("uncordon", NODES[0])
    wait_until_running(kubectl)


def test_an_update_never_leaves_fewer_than_two(kubectl: Kubectl, deployed: Deployed) -> None:
    """Of all services at once, as a release does it."""
    wait_until_running(kubectl)
    before = {service: _list_pods(kubectl, service) for service in SERVICE_NAMES}
    with _watch_services(kubectl, _AVAILABLE) as available:
        for service in SERVICE_NAMES:
            _update(kubectl, service)
        for service in SERVICE_NAMES:
            _wait_for_rollout(kubectl, service)
    assert all(min(seen.numbers) >= 2 for seen in available)
    assert all(len(seen.numbers) > 1 for seen in available), "nothing was seen to happen"
    assert not any(before[service] & _list_pods(kubectl, service) for service in SERVICE_NAMES)


def test_a_rollback_never_leaves_fewer_than_two(kubectl: Kubectl, deployed: Deployed) -> None:
    _update(kubectl, "order-service")
    _wait_for_rollout(kubectl, "order-service")
    updated = _list_pods(kubectl, "order-service")
    with watch(kubectl, "deployment", "order-service", _AVAILABLE) as available:
        kubectl("rollout", "undo", "deployment/order-service", _SCOPE)
        _wait_for_rollout(kubectl, "order-service")
    assert min(available.numbers) >= 2
    assert not updated & _list_pods(kubectl, "order-service")


def test_an_update_that_never_starts_takes_nothing_away(kubectl: Kubectl, deployed: Deployed) -> None:
    """An image that no node has, in the shape that simulated nodes know: a pod that fits nowhere."""
    wait_until_running(kubectl)
    before = _list_pods(kubectl, "user-service")
    nowhere = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "nowhere"}}}}}
    with watch(kubectl, "deployment", "user-service", _AVAILABLE) as available:
        kubectl("patch", "deployment", "user-service", _SCOPE, f"--patch={json.dumps(nowhere)}")
        with pytest.raises(KubectlError, match="timed out"):
            kubectl("rollout", "status", "deployment/user-service", _SCOPE, "--timeout=20s")
        assert before <= _list_pods(kubectl, "user-service")
        kubectl("rollout", "undo", "deployment/user-service", _SCOPE)
        _wait_for_rollout(kubectl, "user-service")
    assert min(available.numbers) == 2
    assert before == _list_pods(kubectl, "user-service")


def test_a_drain_takes_one_pod_of_a_service_at_a_time(kubectl: Kubectl, empty_node: str) -> None:
    _crowd(kubectl, empty_node)
    # A budget counts pods that are ready, and so do clients; "available" ones have been so for some seconds.
    with _watch_services(kubectl, ".status.readyReplicas") as ready:
        services = "--pod-selector=app.kubernetes.io/component=service"
        kubectl("drain", empty_node, services, "--delete-emptydir-data", "--timeout=300s", timeout_s=310)
        assert not _list_services_on(kubectl, empty_node)
    assert all(min(seen.numbers) >= 1 for seen in ready)
    assert any(min(seen.numbers) == 1 for seen in ready), "nothing was seen to leave"


def test_a_budget_refuses_the_second_eviction(kubectl: Kubectl, deployed: Deployed) -> None:
    wait_until_running(kubectl)
    first, second = sorted(_list_pods(kubectl, "supplier-service"))
    _evict(kubectl, first)
    with pytest.raises(KubectlError, match="disruption budget"):
        _evict(kubectl, second)
    wait_until_running(kubectl)


def test_nobody_evicts_the_database(kubectl: Kubectl, deployed: Deployed) -> None:
    wait_until_running(kubectl)
    with pytest.raises(KubectlError, match="disruption budget"):
        _evict(kubectl, "postgres-0")


def test_the_database_keeps_its_volume_when_its_pod_goes(kubectl: Kubectl, deployed: Deployed) -> None:
    def identify() -> tuple[str, str]:
        claim = kubectl.get("pvc", "data-postgres-0", _SCOPE)
        return claim["spec"]["volumeName"], kubectl.get("pod", "postgres-0", _SCOPE)["metadata"]["uid"]

    volume, pod = identify()
    kubectl("delete", "pod", "postgres-0", _SCOPE, "--grace-period=1", timeout_s=150)
    wait_until_running(kubectl)
    assert identify()[0] == volume
    assert identify()[1] != pod


@contextmanager
def _watch_services(kubectl: Kubectl, path: str) -> Generator[list[Watched]]:
    """A count in the status of each service's Deployment, from now on."""
    with ExitStack() as stack:
        yield [stack.enter_context(watch(kubectl, "deployment", name, path)) for name in SERVICE_NAMES]


def _list_pods(kubectl: Kubectl, service: str) -> set[str]:
    """Names of the pods that are ready and not about to end."""
    return {
        pod["metadata"]["name"]
        for pod in kubectl.get("pods", _SCOPE, f"--selector=app={service}")
        if "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    }


def _update(kubectl: Kubectl, service: str) -> None:
    """What a new image does to a Deployment, without needing one."""
    mark = {"spec": {"template": {"metadata": {"annotations": {"lab/update": secrets.token_hex(4)}}}}}
    kubectl("patch", "deployment", service, _SCOPE, f"--patch={json.dumps(mark)}")


def _wait_for_rollout(kubectl: Kubectl, service: str) -> None:
    timeout = f"--timeout={_ROLLOUT_TIMEOUT_S:.0f}s"
    kubectl("rollout", "status", f"deployment/{service}", _SCOPE, timeout, timeout_s=_ROLLOUT_TIMEOUT_S + 10)


def _crowd(kubectl: Kubectl, node: str) -> None:
    """Bring both pods of every service onto one node, so that its drain has to choose."""
    others = [other for other in NODES if other != node]
    kubectl("cordon", *others)
    for service in SERVICE_NAMES:
        _update(kubectl, service)
    for service in SERVICE_NAMES:
        _wait_for_rollout(kubectl, service)
    kubectl("uncordon", *others)
    assert len(_list_services_on(kubectl, node)) == 2 * len(SERVICE_NAMES)


def _list_services_on(kubectl: Kubectl, node: str) -> list[str]:
    pods = kubectl.get(
        "pods", _SCOPE, f"--field-selector=spec.nodeName={node}", "--selector=app.kubernetes.io/component=service"
    )
    return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def _evict(kubectl: Kubectl, pod: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": "inventory-system"},
    }
    path = f"/api/v1/namespaces/inventory-system/pods/{pod}/eviction"
    kubectl("create", f"--raw={path}", "--filename=-", content=json.dumps(eviction))
