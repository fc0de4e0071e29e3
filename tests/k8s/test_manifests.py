"""The tree says what was specified: names, numbers, namespaces, schemas of every supported release of Kubernetes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from k8s.tools.rendering import TREE, Manifest, RenderingError, containers_of, pod_of, render
from stockade.targets import NAMES, SERVICES

RELEASES = ("1.35", "1.36", "1.37")
OVERLAYS = ("overlays/staging", "overlays/production", "overlays/minimal")
CUSTOM = ("monitoring.coreos.com/", "gateway.networking.k8s.io/", "cert-manager.io/", "keda.sh/")
PSS = "pod-security.kubernetes.io/"
FILES = ("deployment", "service", "hpa", "servicemonitor", "networkpolicy", "serviceaccount", "pdb", "kustomization")
BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
    },
}


@pytest.fixture(scope="module")
def rendered() -> Mapping[str, list[Manifest]]:
    return {directory: render(directory) for directory in ("base", *OVERLAYS)}


@pytest.mark.parametrize(
    "directory", sorted(path.parent.relative_to(TREE) for path in TREE.rglob("kustomization.yaml"))
)
def test_every_directory_renders_by_itself(directory: Path) -> None:
    # A Component is no Kustomization: it is rendered by those that use it.
    if "kind: Component" not in (TREE / directory / "kustomization.yaml").read_text():
        assert render(directory)


def test_rendering_tells_what_kustomize_said(tmp_path: Path) -> None:
    with pytest.raises(RenderingError, match="kustomization"):
        render(tmp_path)


@pytest.mark.parametrize("release", RELEASES)
def test_built_in_kinds_are_what_this_release_knows(rendered: Mapping[str, list[Manifest]], release: str) -> None:
    # Most manifests are the same in every overlay, and each costs a while.
    distinct = {json.dumps(manifest): manifest for manifests in rendered.values() for manifest in manifests}
    for manifest in distinct.values():
        if not manifest["apiVersion"].startswith(CUSTOM):
            kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_a_field_that_no_release_knows_is_refused(rendered: Mapping[str, list[Manifest]], release: str) -> None:
    mistyped = find(rendered["base"], "Deployment", "user-service") | {"specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(mistyped, release, strict=True)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_has_one_name_all_the_way_down(rendered: Mapping[str, list[Manifest]], service: Any) -> None:
    assert {path.stem for path in (TREE / "base/services" / service.name).iterdir()} == set(FILES)
    deployment = find(rendered["base"], "Deployment", service.name)
    pod = deployment["spec"]["template"]
    (server,) = pod["spec"]["containers"]
    assert (server["name"], server["args"]) == ("server", ["serve", service.name])
    assert pod["spec"]["serviceAccountName"] == service.name
    assert deployment["spec"]["selector"] == {"matchLabels": {"app": service.name}}
    environment = {entry["name"]: entry["value"] for entry in server["env"]}
    assert environment["STOCKADE_DATABASE_USER"] == f"stockade_{service.schema}"
    items = {volume["name"]: volume["secret"].get("items") for volume in pod["spec"]["volumes"] if "secret" in volume}
    assert items["database-password"] == [{"key": f"stockade_{service.schema}", "path": "password"}]
    assert items["service-secret"] == [{"key": service.name, "path": "secret"}]
    assert ("jwt-secret" in items) == (service.name == "user-service")
    exposed = find(rendered["base"], "Service", service.name)["spec"]
    assert exposed["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]
    assert exposed["selector"] == {"app": service.name}


@pytest.mark.parametrize("name", NAMES)
def test_the_autoscaler_has_the_specified_numbers(rendered: Mapping[str, list[Manifest]], name: str) -> None:
    spec = find(rendered["base"], "HorizontalPodAutoscaler", f"{name}-hpa")["spec"]
    metrics = {metric["resource"]["name"]: metric["resource"]["target"] for metric in spec["metrics"]}
    assert spec["scaleTargetRef"]["name"] == name
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert metrics == {
        "cpu": {"type": "Utilization", "averageUtilization": 70},
        "memory": {"type": "Utilization", "averageUtilization": 80},
    }
    assert spec["behavior"] == BEHAVIOR
    assert "replicas" not in find(rendered["base"], "Deployment", name)["spec"]


@pytest.mark.parametrize("name", NAMES)
def test_keda_keeps_the_name_and_the_numbers_and_adds_requests(
    rendered: Mapping[str, list[Manifest]], name: str
) -> None:
    manifests = rendered["overlays/production"]
    assert not [manifest for manifest in manifests if manifest["kind"] == "HorizontalPodAutoscaler"]
    spec = find(manifests, "ScaledObject", name)["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 10)
    assert spec["advanced"]["horizontalPodAutoscalerConfig"] == {"name": f"{name}-hpa", "behavior": BEHAVIOR}
    targets = {t["type"]: t["metadata"].get("value") or t["metadata"]["threshold"] for t in spec["triggers"]}
    assert targets == {"cpu": "70", "memory": "80", "prometheus": "1000"}
    assert f'service="{name}"' in spec["triggers"][0]["metadata"]["query"]
    assert spec["fallback"]["replicas"] > spec["minReplicaCount"]


def test_both_namespaces_are_restricted_bounded_and_closed(rendered: Mapping[str, list[Manifest]]) -> None:
    for namespace in ("inventory-system", "inventory-edge"):
        labels = find(rendered["base"], "Namespace", namespace)["metadata"]["labels"]
        for mode in ("enforce", "warn", "audit"):
            assert (labels[PSS + mode], labels[f"{PSS}{mode}-version"]) == ("restricted", "v1.35")
        inside = [it for it in rendered["base"] if it["metadata"].get("namespace") == namespace]
        deny = find(inside, "NetworkPolicy", "default-deny")["spec"]
        assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        assert find(inside, "ServiceAccount", "default")["automountServiceAccountToken"] is False
        assert find(inside, "ResourceQuota", "bounds")["spec"]["hard"]
        assert find(inside, "LimitRange", "defaults")["spec"]["limits"]


def test_the_grace_period_covers_the_whole_stop(rendered: Mapping[str, list[Manifest]]) -> None:
    for name in NAMES:
        pod = find(rendered["base"], "Deployment", name)["spec"]["template"]["spec"]
        (server,) = pod["containers"]
        environment = {entry["name"]: entry["value"] for entry in server["env"]}
        drain = float(environment["STOCKADE_DRAIN_DELAY_S"]) + float(environment["STOCKADE_DRAIN_LIMIT_S"])
        assert pod["terminationGracePeriodSeconds"] > server["lifecycle"]["preStop"]["sleep"]["seconds"] + drain


def test_only_traefik_talks_to_the_api_server(rendered: Mapping[str, list[Manifest]]) -> None:
    pods = {it["metadata"]["name"]: pod["spec"] for it in rendered["base"] if (pod := pod_of(it))}
    assert {name for name, spec in pods.items() if spec.get("automountServiceAccountToken") is not False} == {"traefik"}
    rules = [rule for it in rendered["base"] if it["kind"] in ("Role", "ClusterRole") for rule in it["rules"]]
    assert rules
    for rule in rules:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
    (cluster_wide,) = [it for it in rendered["base"] if it["kind"] == "ClusterRole"]
    assert "secrets" not in [resource for rule in cluster_wide["rules"] for resource in rule["resources"]]


def test_nothing_secret_is_in_the_tree(rendered: Mapping[str, list[Manifest]]) -> None:
    for manifests in rendered.values():
        assert not [it["metadata"]["name"] for it in manifests if it["kind"] == "Secret"]


def test_an_empty_cluster_knows_every_kind_of_the_minimal_overlay(rendered: Mapping[str, list[Manifest]]) -> None:
    manifests = rendered["overlays/minimal"]
    assert not [it["kind"] for it in manifests if it["apiVersion"].startswith(CUSTOM)]
    assert not [it for it in manifests if it["kind"] == "HorizontalPodAutoscaler"]
    deployments = [it for it in manifests if it["kind"] == "Deployment"]
    assert {it["spec"]["replicas"] for it in deployments} == {1}
    assert {*NAMES, "kong"} == {it["metadata"]["name"] for it in deployments}


def test_an_overlay_says_its_host_once(rendered: Mapping[str, list[Manifest]]) -> None:
    manifests = rendered["overlays/staging"]
    host = "stockade.staging.example.com"
    assert find(manifests, "Certificate", "stockade-tls")["spec"]["dnsNames"] == [host]
    assert {it["hostname"] for it in find(manifests, "Gateway", "stockade")["spec"]["listeners"]} == {host}
    assert [it["spec"]["hostnames"] for it in manifests if it["kind"] == "HTTPRoute"] == [[host], [host]]
    (start, *_) = containers_of(find(manifests, "Deployment", "kong")["spec"]["template"])
    assert {"name": "STOCKADE_ORIGINS", "value": f"https://{host}"} in start["env"]
    assert not [it for it in manifests if it["metadata"]["name"] == "site"]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [it for it in manifests if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found
