"""How pods are found: every selector matches what it is meant to, and the ports and routes that lead there are open."""

from collections.abc import Iterator, Mapping
from typing import Any

from k8s.tools.connections import find_pods
from k8s.tools.rendering import Manifest
from tests.k8s.trees import Findings, Workload, namespace_of, of_kind, selects, title_of, workloads_of

FOREIGN = {"acme-solver": "its pods are cert-manager's, while a challenge lasts"}
"""Selectors that match no pod of ours, each with its reason."""

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_NOBODY = {"matchLabels": {"": "nobody"}}


def find_idle_selectors(manifests: list[Manifest]) -> Findings:
    """Every selector of ours matches a pod of ours, in its own namespace."""
    pods = find_pods(manifests)
    return [
        f"{title_of(manifest)} selects nothing with {selector}"
        for manifest in manifests
        for selector in _selectors_of(manifest)
        if manifest["metadata"]["name"] not in FOREIGN
        and not any(namespace == namespace_of(manifest) and selects(selector, labels) for namespace, labels in pods)
    ]


def find_blurred_selectors(manifests: list[Manifest]) -> Findings:
    """A workload selects its own pods and nobody else's, and the pods behind a Service are all of one workload."""
    findings: Findings = []
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "DaemonSet", "Service", "PodDisruptionBudget"):
        near = [it for it in workloads_of(manifests) if it.namespace == namespace_of(manifest)]
        for selector in _selectors_of(manifest):
            names = [it.name for it in near if selects(selector, it.labels)]
            if len(names) > 1 or (manifest["kind"] == "Deployment" and names != [manifest["metadata"]["name"]]):
                findings.append(f"{title_of(manifest)} selects pods of {', '.join(names) or 'nobody'}")
    return findings


def find_closed_ports(manifests: list[Manifest]) -> Findings:
    """The ports that probes, Services and PodMonitors name are open in every pod that they select."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        open_ports = _open_ports(workload)
        findings += [
            f"{workload.title}: a probe asks {it}" for it in sorted(_probed_ports(workload) - open_ports, key=str)
        ]
        for manifest in of_kind(manifests, "Service", "PodMonitor"):
            near = namespace_of(manifest) == workload.namespace
            if near and any(selects(selector, workload.labels) for selector in _selectors_of(manifest)):
                missing = sorted(_wanted_ports(manifest) - open_ports, key=str)
                findings += [f"{title_of(manifest)}: {workload.title} has no port {port}" for port in missing]
    return findings


def find_unmonitored_ports(manifests: list[Manifest]) -> Findings:
    """A ServiceMonitor finds a Service that has the port it names."""
    findings: Findings = []
    for monitor in of_kind(manifests, "ServiceMonitor"):
        ports = {
            port.get("name")
            for service in of_kind(manifests, "Service")
            if namespace_of(service) == namespace_of(monitor)
            and selects(monitor["spec"]["selector"], service["metadata"].get("labels", {}))
            for port in service["spec"]["ports"]
        }
        wanted = [endpoint["port"] for endpoint in monitor["spec"].get("endpoints", [])] or ["any at all"]
        findings += [f"{title_of(monitor)}: no Service has the port {port}" for port in wanted if port not in ports]
    return findings


def find_unmonitored_workloads(manifests: list[Manifest]) -> Findings:
    """Where there are monitors, each workload that runs for long has one."""
    monitors = of_kind(manifests, "ServiceMonitor", "PodMonitor")
    return [
        f"{workload.title} is not monitored"
        for workload in workloads_of(manifests)
        if monitors and workload.is_long_running
        if not any(
            namespace_of(it) == workload.namespace and selects(it["spec"].get("selector", _NOBODY), workload.labels)
            for it in monitors
        )
    ]


def find_lost_routes(manifests: list[Manifest]) -> Findings:
    """HTTPRoutes lead from a listener of a Gateway to a port of a Service, and somebody asks for the certificate shown."""
    ports = {
        (namespace_of(it), it["metadata"]["name"], port["port"])
        for it in of_kind(manifests, "Service")
        for port in it["spec"]["ports"]
    }
    listeners = {
        (namespace_of(it), it["metadata"]["name"], one["name"]): one
        for it in of_kind(manifests, "Gateway")
        for one in it["spec"]["listeners"]
    }
    findings: Findings = []
    for route in of_kind(manifests, "HTTPRoute"):
        space, spec = namespace_of(route), route["spec"]
        backends = [it for rule in spec.get("rules", []) for it in rule.get("backendRefs", [])]
        lost = [it for it in spec["parentRefs"] if (space, it["name"], it.get("sectionName")) not in listeners]
        lost += [it for it in backends if (space, it["name"], it.get("port")) not in ports]
        findings += [f"{title_of(route)}: there is no {it}" for it in lost]
    asked = {(namespace_of(it), it["spec"]["secretName"]) for it in of_kind(manifests, "Certificate")}
    for (space, name, _), listener in listeners.items():
        shown = [it["name"] for it in listener.get("tls", {}).get("certificateRefs", [])]
        findings += [f"Gateway/{name}: nobody asks for {it}" for it in shown if (space, it) not in asked]
    return findings


def _selectors_of(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "Service" if "selector" in spec:
            yield {"matchLabels": spec["selector"]}
        case "NetworkPolicy":
            yield spec["podSelector"]
        case "PodDisruptionBudget" | "PodMonitor" | "Deployment" | "StatefulSet" | "DaemonSet":
            yield spec.get("selector", _NOBODY)
        case _:
            return


def _open_ports(workload: Workload) -> set[str | int]:
    ports = [port for container in workload.containers for port in container.get("ports", [])]
    return {port["containerPort"] for port in ports} | {port["name"] for port in ports if "name" in port}


def _probed_ports(workload: Workload) -> set[str | int]:
    handlers = [
        container.get(probe, {}).get(way)
        for container in workload.containers
        for probe in _PROBES
        for way in ("httpGet", "tcpSocket")
    ]
    return {handler["port"] for handler in handlers if handler}


def _wanted_ports(manifest: Manifest) -> set[str | int]:
    if manifest["kind"] == "Service":
        return {port.get("targetPort", port["port"]) for port in manifest["spec"]["ports"]}
    return {endpoint["port"] for endpoint in manifest["spec"]["podMetricsEndpoints"]}
