"""How the tree is put together: every directory renders, an overlay says what is its own once, an empty cluster suffices."""

from pathlib import Path

import pytest

from k8s.tools.rendering import TREE, RenderingError, containers_of, render
from stockade.targets import NAMES
from tests.k8s.schemas import BUILT_IN
from tests.k8s.trees import find, of_kind, render_all


@pytest.mark.parametrize(
    "directory", sorted(path.parent.relative_to(TREE) for path in TREE.rglob("kustomization.yaml")), ids=str
)
def test_every_directory_renders_by_itself(directory: Path) -> None:
    # A Component is no Kustomization: it is rendered by those that use it.
    if "kind: Component" not in (TREE / directory / "kustomization.yaml").read_text():
        assert render(directory)


def test_rendering_tells_what_kustomize_said(tmp_path: Path) -> None:
    with pytest.raises(RenderingError, match="kustomization"):
        render(tmp_path)


def test_an_empty_cluster_knows_every_kind_of_the_minimal_overlay() -> None:
    manifests = render_all()["overlays/minimal"]
    assert not [it["kind"] for it in manifests if it["apiVersion"] not in BUILT_IN]
    # It has no metrics-server, so nobody could scale.
    assert not of_kind(manifests, "HorizontalPodAutoscaler")
    deployments = of_kind(manifests, "Deployment")
    assert {it["spec"]["replicas"] for it in deployments} == {1}
    assert {*NAMES, "kong"} == {it["metadata"]["name"] for it in deployments}


def test_an_overlay_says_its_host_once() -> None:
    manifests = render_all()["overlays/staging"]
    host = "stockade.staging.example.com"
    assert find(manifests, "Certificate", "stockade-tls")["spec"]["dnsNames"] == [host]
    assert {it["hostname"] for it in find(manifests, "Gateway", "stockade")["spec"]["listeners"]} == {host}
    assert [it["spec"]["hostnames"] for it in of_kind(manifests, "HTTPRoute")] == [[host], [host]]
    (start, *_) = containers_of(find(manifests, "Deployment", "kong")["spec"]["template"])
    assert {"name": "STOCKADE_ORIGINS", "value": f"https://{host}"} in start["env"]
    assert not [it for it in manifests if it["metadata"]["name"] == "site"]


def test_keda_is_in_the_overlays_of_real_clusters_and_survives_the_loss_of_its_numbers() -> None:
    for overlay in ("overlays/staging", "overlays/production"):
        manifests = render_all()[overlay]
        scaled = of_kind(manifests, "ScaledObject")
        assert {it["metadata"]["name"] for it in scaled} == set(NAMES)
        for spec in (it["spec"] for it in scaled):
            assert spec["fallback"]["replicas"] > spec["minReplicaCount"]


def test_production_insists_on_different_nodes() -> None:
    for deployment in of_kind(render_all()["overlays/production"], "Deployment"):
        nodes, zones = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert (nodes["whenUnsatisfiable"], zones["whenUnsatisfiable"]) == ("DoNotSchedule", "ScheduleAnyway")
