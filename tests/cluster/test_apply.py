"""Everything goes onto an empty cluster in the documented order, runs, and stays as it is when it is applied again."""

from collections.abc import Generator

import pytest
import yaml

from lab.cluster import Cluster
from lab.fake_nodes import NODES
from lab.kubectl import Kubectl, KubectlError
from tests.cluster.deployment import NAMESPACES, SECRETS, SERVICE_NAMES, TREE, Deployed, name_of, read_rendered

_STEPS = [
    "namespaces",
    "secrets",
    "database",
    "postgres-bootstrap",
    "stockade-migrate",
    "services",
    "gateway",
    "ingress",
]

OVERLAYS = sorted(path.name for path in (TREE / "overlays").iterdir() if (path / "kustomization.yaml").exists())


def test_without_the_secrets_it_stops_and_says_what_is_missing(deployed: Deployed) -> None:
    run = deployed.without_secrets
    assert run.code == 1
    assert "the Secret postgres-secret is missing" in run.errors
    assert "database: " not in run.output


def test_everything_is_brought_in_order(kubectl: Kubectl, deployed: Deployed) -> None:
    rendered = {name_of(item) for item in read_rendered(kubectl, "base")}
    assert len(rendered) > 60
    assert set(deployed.before) == rendered
    steps = [step for line in deployed.first.output.splitlines() if (step := line.split(": ")[1]) in _STEPS]
    assert list(dict.fromkeys(steps)) == _STEPS


def test_bringing_it_again_changes_nothing(deployed: Deployed) -> None:
    """But for the Jobs, which are done again because a finished one cannot be changed."""
    assert (deployed.second.code, deployed.second.errors) == (0, "")
    assert [name for name in deployed.changed if not name.startswith("Job ")] == []
    assert deployed.after.keys() == deployed.before.keys()


def test_the_base_is_applied_without_a_warning(kubectl: Kubectl, deployed: Deployed) -> None:
    items = [item for item in read_rendered(kubectl, "base") if item["kind"] != "Job"]
    options = ("--dry-run=server", "--validate=strict", "--warnings-as-errors")
    assert len(kubectl.apply(yaml.safe_dump_all(items), *options)) == len(items)


def test_the_secrets_that_it_makes_are_complete(deployed: Deployed) -> None:
    assert set(deployed.secrets) == set(SECRETS)
    assert len(deployed.secret_values) == len(set(deployed.secret_values)) > 14
    assert all(len(value) >= 32 for value in deployed.secret_values)


def test_every_pod_runs_or_has_done_its_work(kubectl: Kubectl, deployed: Deployed) -> None:
    pods = [pod for namespace in NAMESPACES for pod in kubectl.get("pods", f"--namespace={namespace}")]
    jobs = {pod["metadata"]["name"] for pod in pods if pod["metadata"]["ownerReferences"][0]["kind"] == "Job"}
    assert len(jobs) >= 2
    phases = {(pod["status"]["phase"], pod["metadata"]["name"] in jobs) for pod in pods}
    assert phases == {("Running", False), ("Succeeded", True)}


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_a_service_spreads_over_nodes_and_zones(kubectl: Kubectl, deployed: Deployed, service: str) -> None:
    pods = kubectl.get("pods", "--namespace=inventory-system", f"--selector=app={service}")
    assert len(pods) == 2
    nodes = {pod["spec"]["nodeName"] for pod in pods}
    assert len(nodes) == 2
    assert nodes <= set(NODES)


def test_every_service_leads_to_ready_pods(kubectl: Kubectl, deployed: Deployed) -> None:
    for namespace in NAMESPACES:
        services = {item["metadata"]["name"] for item in kubectl.get("services", f"--namespace={namespace}")}
        assert services
        assert services == _find_served(kubectl, namespace)


def test_the_autoscaler_reads_the_use_of_every_service(kubectl: Kubectl, deployed: Deployed) -> None:
    def all_know(_: Kubectl) -> bool:
        scalers = kubectl.get("hpa", "--namespace=inventory-system")
        known = [c for s in scalers for c in s["status"].get("conditions", []) if c["type"] == "ScalingActive"]
        return len(known) == len(SERVICE_NAMES) and all(condition["status"] == "True" for condition in known)

    kubectl.wait_until(all_know, "metrics for every autoscaler", 120)


@pytest.fixture(scope="module")
def empty_namespaces(kubectl: Kubectl, deployed: Deployed) -> Generator[dict[str, str]]:
    """Namespaces like ours with nothing in them, by ours: an overlay is for another cluster, not for on top of the base."""
    others = {namespace: namespace.replace("inventory", "empty") for namespace in NAMESPACES}
    kubectl.apply(_rename(kubectl.render(TREE / "base/namespaces"), others))
    yield others
    kubectl("delete", "namespaces", *others.values(), "--wait=false")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_accepts_every_overlay(kubectl: Kubectl, empty_namespaces: dict[str, str], overlay: str) -> None:
    content = _rename(kubectl.render(TREE / "overlays" / overlay), empty_namespaces)
    options = ("--dry-run=server", "--validate=strict", "--warnings-as-errors", "--force-conflicts")
    assert len(kubectl.apply(content, *options)) > 40


def test_there_are_overlays_to_accept() -> None:
    assert {"minimal", "production", "staging"} <= set(OVERLAYS)


def test_a_misspelt_field_is_refused(kubectl: Kubectl, deployed: Deployed) -> None:
    content = kubectl.render(TREE / "base/services/user-service").replace("readOnlyRootFilesystem", "readOnlyRoot")
    with pytest.raises(KubectlError, match="field not declared in schema"):
        kubectl.apply(content, "--dry-run=server", "--validate=strict")


def test_the_lab_has_the_definitions_of_every_product(cluster: Cluster, kubectl: Kubectl) -> None:
    products = {source.product for source in cluster.programs.definitions}
    assert products == {"Gateway API", "cert-manager", "Prometheus Operator", "KEDA"}
    names = {item["metadata"]["name"] for item in kubectl.get("customresourcedefinitions")}
    assert {
        "httproutes.gateway.networking.k8s.io", "certificates.cert-manager.io",
        "servicemonitors.monitoring.coreos.com", "scaledobjects.keda.sh",
    } <= names  # fmt: skip


def _rename(content: str, names: dict[str, str]) -> str:
    for name, other in names.items():
        content = content.replace(name, other)
    return content


def _find_served(kubectl: Kubectl, namespace: str) -> set[str]:
    """Services with at least one endpoint that takes requests."""
    return {
        piece["metadata"]["labels"]["kubernetes.io/service-name"]
        for piece in kubectl.get("endpointslices", f"--namespace={namespace}")
        for endpoint in piece.get("endpoints") or []
        if endpoint["conditions"].get("ready") and piece.get("ports")
    }
