"""What was specified in numbers and names: k8s/README.md and everybody's commands rely on it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8s.tools.images import parse
from k8s.tools.rendering import Manifest
from stockade.targets import NAMES, SERVICES
from tests.k8s.trees import Findings, namespace_of, of_kind, title_of, workloads_of

VERSION: str = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]
NAMESPACE = "inventory-system"
HOST = f"postgres.{NAMESPACE}.svc.cluster.local"
BEHAVIOR: Mapping[str, Any] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
    },
}
UTILIZATION = {"cpu": 70, "memory": 80}
REQUESTS = "1000"
REPLICAS = (2, 10)


def find_missing_objects(manifests: list[Manifest]) -> Findings:
    """The objects that the specification's commands name, under those names. Autoscalers and monitors as far as there are any."""
    there = {(it["kind"], namespace_of(it), it["metadata"]["name"]) for it in manifests}
    for cluster in of_kind(manifests, "Cluster"):
        # CloudNativePG makes Services by itself.
        services = cluster["spec"]["managed"]["services"]["additional"]
        there |= {("Service", namespace_of(cluster), it["serviceTemplate"]["metadata"]["name"]) for it in services}
    wanted = [
        (kind, NAMESPACE, name)
        for name in NAMES
        for kind in ("Deployment", "Service", "ServiceAccount", "NetworkPolicy")
    ]
    wanted += [("Namespace", "", NAMESPACE), ("Service", NAMESPACE, "postgres")]
    if of_kind(manifests, "ServiceMonitor"):
        wanted += [("ServiceMonitor", NAMESPACE, name) for name in NAMES]
    return [f"{kind}/{name} is missing" for kind, namespace, name in wanted if (kind, namespace, name) not in there]


def find_wrong_services(manifests: list[Manifest]) -> Findings:
    """http://<service> answers: port 80 to the named port, and pods of that name."""
    expected = [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]
    return [
        f"{title_of(it)} is not what http://{it['metadata']['name']} needs"
        for it in of_kind(manifests, "Service")
        if it["metadata"]["name"] in NAMES
        and (it["spec"]["ports"], it["spec"].get("selector")) != (expected, {"app": it["metadata"]["name"]})
    ]


def find_wrong_processes(manifests: list[Manifest]) -> Findings:
    """The argument, the database role and the address of the database belong to the service that the Deployment is named for."""
    schemas = {service.name: service.schema for service in SERVICES}
    findings: Findings = []
    for workload in workloads_of(manifests):
        for server in workload.spec["containers"] if workload.is_service else []:
            environment = {entry["name"]: entry.get("value", "") for entry in server.get("env", [])}
            said = (
                server.get("args"),
                "command" in server,
                environment.get("STOCKADE_DATABASE_USER"),
                environment.get("STOCKADE_PORT"),
            )
            if said != (["serve", workload.name], False, f"stockade_{schemas[workload.name]}", "8080"):
                findings.append(f"{workload.title} runs {said}")
            url = environment.get("STOCKADE_DATABASE_URL", "")
            if f"@{HOST}:" in url or f"//{HOST}:5432/stockade?" not in url or "sslmode=verify-full&" not in url:
                findings.append(f"{workload.title} goes to {url}")
    return findings


def find_other_versions(manifests: list[Manifest]) -> Findings:
    """Our image is everywhere the one that this tree belongs to: a new version is said in the tree as well."""
    return [
        f"{workload.title}: {container['name']} is of {image.tag}, and the project of {VERSION}"
        for workload in workloads_of(manifests)
        for container in workload.containers
        for image in [parse(container["image"])]
        if image.name.rpartition("/")[2] == "stockade" and image.tag != VERSION
    ]


def find_wrong_scaling(manifests: list[Manifest]) -> Findings:
    """Either plain autoscalers or KEDA's, with the same names and the specified numbers, for each service or for none."""
    plain = {it["metadata"]["name"]: _read_plain(it["spec"]) for it in of_kind(manifests, "HorizontalPodAutoscaler")}
    keda = {_name_of_scaled(it): _read_keda(it["spec"]) for it in of_kind(manifests, "ScaledObject")}
    names = {f"{name}-hpa": name for name in NAMES}
    if not plain and not keda:
        return []
    findings = [f"{name} is there twice" for name in sorted(plain.keys() & keda.keys())]
    findings += [f"{name} is missing" for name in sorted(names.keys() - plain.keys() - keda.keys())]
    findings += [f"{name} is of nobody" for name in sorted((plain.keys() | keda.keys()) - names.keys())]
    for name, said in {**plain, **keda}.items():
        metrics = UTILIZATION | ({"requests": REQUESTS} if name in keda else {})
        if said != (names.get(name), *REPLICAS, metrics, BEHAVIOR):
            findings.append(f"{name} scales by {said}")
    return findings


def find_lossy_claims(manifests: list[Manifest]) -> Findings:
    """Data of the database outlives whatever made its volumes, and an application that is removed."""
    findings = [
        f"{title_of(it)} may take its data with it"
        for it in of_kind(manifests, "StatefulSet")
        if it["spec"].get("persistentVolumeClaimRetentionPolicy") != {"whenDeleted": "Retain", "whenScaled": "Retain"}
    ]
    return findings + [
        f"{title_of(it)} may be pruned"
        for it in of_kind(manifests, "PersistentVolumeClaim")
        if "Delete=false" not in it["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-options", "")
    ]


def _read_plain(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    metrics = {
        metric.get("resource", {}).get("name"): metric.get("resource", {}).get("target", {}).get("averageUtilization")
        for metric in spec.get("metrics", [])
    }
    return (spec["scaleTargetRef"]["name"], spec.get("minReplicas"), spec["maxReplicas"], metrics, spec.get("behavior"))


def _name_of_scaled(manifest: Manifest) -> str:
    made = manifest["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
    return made.get("name", f"keda-hpa-{manifest['metadata']['name']}")


def _read_keda(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    target, metrics = spec["scaleTargetRef"]["name"], dict[str, Any]()
    for trigger in spec["triggers"]:
        asked = trigger["metadata"]
        if trigger["type"] == "prometheus" and f'service="{target}"' in asked["query"]:
            metrics["requests"] = (
                asked["threshold"] if trigger["metricType"] == "AverageValue" else trigger["metricType"]
            )
        elif trigger["metricType"] == "Utilization":
            metrics[trigger["type"]] = int(asked["value"])
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"].get("behavior")
    return (target, spec.get("minReplicaCount"), spec["maxReplicaCount"], metrics, behavior)
