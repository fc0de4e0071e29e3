"""Whether it all fits: what autoscalers may ask for, and what an update adds for a moment, against quotas and limits."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from k8s.tools.rendering import Manifest
from tests.k8s.trees import Findings, Workload, namespace_of, of_kind, workloads_of

_UNITS = {"": 1_000, "m": 1, "Ki": 2**10 * 1_000, "Mi": 2**20 * 1_000, "Gi": 2**30 * 1_000, "Ti": 2**40 * 1_000}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[KMGT]i)?")


def find_overfull_quotas(manifests: list[Manifest]) -> Findings:
    """With every autoscaler at its maximum, all Deployments in the middle of an update and every Job running, quotas suffice."""
    ceilings = {
        it["spec"]["scaleTargetRef"]["name"]: _ceiling_of(it)
        for it in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    }
    findings: Findings = []
    for quota in of_kind(manifests, "ResourceQuota"):
        asked: Counter[str] = Counter()
        for workload in (it for it in workloads_of(manifests) if it.namespace == namespace_of(quota)):
            pods = _pods_at_most(workload, ceilings)
            asked["pods"] += pods * 1_000
            for kind, resource in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
                asked[f"{kind}.{resource}"] += pods * _asked_by(workload, kind, resource)
            asked["persistentvolumeclaims"] += 1_000 * len(workload.manifest["spec"].get("volumeClaimTemplates", []))
        near = [it for it in manifests if namespace_of(it) == namespace_of(quota)]
        asked["persistentvolumeclaims"] += 1_000 * len(of_kind(near, "PersistentVolumeClaim"))
        asked["services.loadbalancers"] += 1_000 * len(
            [it for it in of_kind(near, "Service") if it["spec"].get("type") == "LoadBalancer"]
        )
        hard = quota["spec"]["hard"]
        findings += [
            f"{namespace_of(quota)}: {needed / 1_000:,.0f} {resource} do not fit into {hard[resource]}"
            for resource, needed in asked.items()
            if resource in hard and needed > read_quantity(hard[resource])
        ]
    return findings


def find_oversized_containers(manifests: list[Manifest]) -> Findings:
    """No container asks for more than it may have, nor for more than the LimitRange of its namespace allows."""
    greatest = {
        namespace_of(it): limit["max"]
        for it in of_kind(manifests, "LimitRange")
        for limit in it["spec"]["limits"]
        if "max" in limit
    }
    findings: Findings = []
    for workload in workloads_of(manifests):
        for container in workload.containers:
            resources = container.get("resources", {})
            limits: Mapping[str, str] = resources.get("limits", {})
            for resource, asked in resources.get("requests", {}).items():
                if resource in limits and read_quantity(asked) > read_quantity(limits[resource]):
                    findings.append(
                        f"{workload.title}: {container['name']} asks for {asked} {resource} of {limits[resource]}"
                    )
            for resource, most in greatest.get(workload.namespace, {}).items():
                if read_quantity(limits.get(resource, "0")) > read_quantity(most):
                    findings.append(f"{workload.title}: {container['name']} may have more {resource} than {most}")
    return findings


def find_overfull_volumes(manifests: list[Manifest]) -> Findings:
    """What a pod may write to its own empty directories fits into its limits: on disk and, for those in memory, in memory."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        for resource, in_memory in (("ephemeral-storage", False), ("memory", True)):
            sizes = [
                read_quantity((it["emptyDir"] or {}).get("sizeLimit", "0"))
                for it in workload.spec.get("volumes", [])
                if "emptyDir" in it and ((it["emptyDir"] or {}).get("medium") == "Memory") == in_memory
            ]
            most = sum(
                read_quantity(it.get("resources", {}).get("limits", {}).get(resource, "0"))
                for it in workload.spec["containers"]
            )
            if sum(sizes) > most:
                findings.append(f"{workload.title}: its volumes hold more than its {resource}")
    return findings


def read_quantity(text: str | int) -> int:
    """A quantity of Kubernetes in thousandths: cores in millicores, bytes in thousandths of a byte."""
    match = _QUANTITY.fullmatch(str(text))
    assert match, f"{text!r} is no quantity that is used here"
    return int(float(match[1]) * _UNITS[match[2] or ""])


def _ceiling_of(scaler: Mapping[str, Any]) -> int:
    return scaler["spec"].get("maxReplicas") or scaler["spec"]["maxReplicaCount"]


def _pods_at_most(workload: Workload, ceilings: Mapping[str, int]) -> int:
    if not workload.is_long_running:
        return 1
    spec = workload.manifest["spec"]
    surge = spec.get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", 0)
    return ceilings.get(workload.name, spec.get("replicas", 1)) + int(surge)


def _asked_by(workload: Workload, kind: str, resource: str) -> int:
    """Of one pod: its containers together, or the greediest of those that run first."""

    def of(container: Manifest) -> int:
        return read_quantity(container.get("resources", {}).get(kind, {}).get(resource, "0"))

    together = sum(of(it) for it in workload.spec["containers"])
    return max([together, *(of(it) for it in workload.spec.get("initContainers", []))])
