"""What every workload of the tree keeps to beyond what Pod Security asks: one function a rule."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from k8s.tools.images import parse, read_lock
from k8s.tools.rendering import Manifest
from tests.k8s.trees import Findings, Workload, of_kind, selects, workloads_of

TOKEN_HOLDERS = ("traefik",)
"""Who talks to the API server."""
UNTIMED_JOBS = ("postgres-restore", "postgres-archive-fetch")
"""Who takes as long as it takes: an emergency reads as much as there is, and a person looks at it meanwhile."""
ACTS_AS = {"postgres-archive-fetch": "postgres-archive-copy"}
"""Who has the account, the label and the policy of another one, on purpose."""

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_SERVICE_PROBES = {
    "startupProbe": {"path": "/health", "port": "http"},
    "livenessProbe": {"path": "/health", "port": "http"},
    "readinessProbe": {"path": "/health/ready", "port": "http"},
}
_BOUNDS = {"requests": ("cpu", "memory", "ephemeral-storage"), "limits": ("memory", "ephemeral-storage")}
_LABELS = ("app", "app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/part-of")
_SPREAD = {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}


def find_missing_probes(manifests: list[Manifest]) -> Findings:
    """Everything that runs for long has live and ready probes, and whoever is named `server` one for its start."""
    return [
        f"{workload.title}: {container['name']} has no {probe}"
        for workload in workloads_of(manifests)
        if workload.is_long_running
        for container in workload.spec["containers"]
        for probe in _PROBES
        if probe not in container and (probe != "startupProbe" or container["name"] == "server")
    ]


def find_wrong_probes(manifests: list[Manifest]) -> Findings:
    """A service lives while it answers, whatever its database does, and is ready when that answers as well."""
    return [
        f"{workload.title}: {probe} asks {asked}"
        for workload in workloads_of(manifests)
        if workload.is_service
        for container in workload.spec["containers"]
        for probe, expected in _SERVICE_PROBES.items()
        if (asked := container.get(probe, {}).get("httpGet")) != expected
    ]


def find_shared_accounts(manifests: list[Manifest]) -> Findings:
    """A workload has an account of its own; whoever may act as one of them acts as no other."""
    accounts = Counter(
        (it.namespace, it.spec.get("serviceAccountName", "default"))
        for it in workloads_of(manifests)
        if it.name not in ACTS_AS
    )
    return [
        f"{namespace}: {used} pods run as {account}"
        for (namespace, account), used in accounts.items()
        if account == "default" or used > 1
    ]


def find_tokens(manifests: list[Manifest]) -> Findings:
    """No pod carries a token of the API server but those that need one, and no account hands one out by itself."""
    return [
        *(
            f"{workload.title} mounts a token"
            for workload in workloads_of(manifests)
            if workload.name not in TOKEN_HOLDERS
            and (workload.spec.get("automountServiceAccountToken") is not False or _has_token_volume(workload))
        ),
        *(
            f"ServiceAccount/{account['metadata']['name']} gives tokens to every pod that names it"
            for account in of_kind(manifests, "ServiceAccount")
            if account.get("automountServiceAccountToken") is not False
        ),
    ]


def find_missing_budgets(manifests: list[Manifest]) -> Findings:
    """Exactly one budget for what runs for long. `minAvailable` is not used: at two replicas it would block a drain."""
    return [
        finding for workload in workloads_of(manifests) if workload.is_long_running
        for finding in _judge_budgets(workload, of_kind(manifests, "PodDisruptionBudget"))
    ]  # fmt: skip


def find_fixed_replicas(manifests: list[Manifest]) -> Findings:
    """An autoscaler owns the number of replicas; written down as well, every apply would set it back."""
    scaled = {
        it["spec"]["scaleTargetRef"]["name"] for it in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject")
    }
    return [
        f"{title} {'is autoscaled and fixes' if fixed else 'is not autoscaled and does not say'} its replicas"
        for title, name, fixed in (
            (workload.title, workload.name, "replicas" in workload.manifest["spec"])
            for workload in workloads_of(manifests)
            if workload.kind in ("Deployment", "StatefulSet")
        )
        if fixed == (name in scaled)
    ]


def find_unbounded_containers(manifests: list[Manifest]) -> Findings:
    """Requests and limits for whatever can run out; no limit of CPU, which would only slow down. Volumes are bounded too."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        for container in workload.containers:
            resources = container.get("resources", {})
            missing = [f"{k}.{r}" for k, needed in _BOUNDS.items() for r in needed if r not in resources.get(k, {})]
            findings += [f"{workload.title}: {container['name']} has no {bound}" for bound in missing]
        for volume in workload.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                findings.append(f"{workload.title}: the volume {volume['name']} has no sizeLimit")
    return findings


def find_writable_roots(manifests: list[Manifest]) -> Findings:
    """A read-only root, which Pod Security does not ask for, and Secrets and ConfigMaps that nobody writes to."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        fixed = {
            it["name"] for it in workload.spec.get("volumes", []) if it.keys() & {"secret", "configMap", "projected"}
        }
        for container in workload.containers:
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                findings.append(f"{workload.title}: {container['name']} has a writable root")
            for mount in container.get("volumeMounts", []):
                if mount["name"] in fixed and not mount.get("readOnly"):
                    findings.append(f"{workload.title}: {container['name']} mounts {mount['name']} to write")
    return findings


def find_common_users(manifests: list[Manifest]) -> Findings:
    """A number for user and group, never root's: a name in an image cannot be checked by the kubelet."""
    return [
        f"{workload.title}: {container['name']} has no {field}"
        for workload in workloads_of(manifests)
        for container in workload.containers
        for field in ("runAsUser", "runAsGroup")
        if not (workload.spec.get("securityContext", {}) | container.get("securityContext", {})).get(field)
    ]


def find_loose_images(manifests: list[Manifest]) -> Findings:
    """Every image is ours with a version, or exactly what images.lock says; nothing is pulled for its own sake."""
    locked = {str(image.reference) for image in read_lock()}
    findings: Findings = []
    for workload in workloads_of(manifests):
        for container in workload.containers:
            image = parse(container["image"])
            is_ours = image.name.rpartition("/")[2] == "stockade"
            if image.tag in ("", "latest") or not (is_ours or str(image) in locked):
                findings.append(f"{workload.title}: {container['image']} is not locked")
            if container.get("imagePullPolicy") != "IfNotPresent":
                findings.append(f"{workload.title}: {container['name']} does not say imagePullPolicy: IfNotPresent")
    return findings


def find_risky_updates(manifests: list[Manifest]) -> Findings:
    """No update takes a pod away before its successor has been ready for a moment."""
    return [
        f"{workload.title} updates by {strategy}, minReadySeconds {workload.manifest['spec'].get('minReadySeconds')}"
        for workload in workloads_of(manifests)
        if workload.kind == "Deployment"
        for strategy in [workload.manifest["spec"].get("strategy", {}).get("rollingUpdate", {})]
        if strategy.get("maxUnavailable") != 0 or not strategy.get("maxSurge")
        or not workload.manifest["spec"].get("minReadySeconds")
    ]  # fmt: skip


def find_crowding(manifests: list[Manifest]) -> Findings:
    """Replicas are spread over nodes and zones, and only pods of their own kind count."""
    return [
        f"{workload.title} is spread over {sorted(spread) or 'nothing'} only"
        for workload in workloads_of(manifests)
        if workload.kind == "Deployment"
        for spread in [set(_spread_keys(workload))]
        if spread != _SPREAD
    ]


def find_short_stops(manifests: list[Manifest]) -> Findings:
    """The grace period covers the pause before the signal and all that a service does after it."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        for container in workload.spec["containers"] if workload.is_service else []:
            environment = _environment(container)
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            drain = sum(float(environment.get(f"STOCKADE_DRAIN_{part}_S", "0")) for part in ("DELAY", "LIMIT"))
            if not pause or not drain or workload.spec.get("terminationGracePeriodSeconds", 30) <= pause + drain:
                findings.append(f"{workload.title} is killed before it has stopped: {pause} s + {drain} s")
    return findings


def find_unnamed(manifests: list[Manifest]) -> Findings:
    """The main container is `server`, and pods and their workload carry the four labels, which agree."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        if workload.spec["containers"][0]["name"] != "server":
            findings.append(f"{workload.title}: its first container is not `server`")
        own = workload.manifest["metadata"].get("labels", {})
        findings += [
            f"{workload.title}: the label {label} is {own.get(label)}, on its pods {workload.labels.get(label)}"
            for label in _LABELS
            if not own.get(label) or own[label] != workload.labels.get(label)
        ]
        if own.get("app") != ACTS_AS.get(workload.name, workload.name):
            findings.append(f"{workload.title}: its app is {own.get('app')}")
    return findings


def find_inherited_variables(manifests: list[Manifest]) -> Findings:
    """Links to Services would set variables such as KONG_PORT, which programs take for settings of theirs."""
    workloads = workloads_of(manifests)
    return [f"{it.title} has service links" for it in workloads if it.spec.get("enableServiceLinks") is not False]


def find_endless_jobs(manifests: list[Manifest]) -> Findings:
    """A Job gives up, by attempts and by time; a CronJob is never there twice and names its zone."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        spec = workload.manifest["spec"]
        job = spec["jobTemplate"]["spec"] if workload.kind == "CronJob" else spec
        bounds = {"backoffLimit"} | ({"activeDeadlineSeconds"} if workload.name not in UNTIMED_JOBS else set())
        if workload.kind in ("Job", "CronJob") and not bounds <= job.keys():
            findings.append(f"{workload.title} may try for ever")
        if workload.kind == "CronJob" and (spec.get("concurrencyPolicy") != "Forbid" or "timeZone" not in spec):
            findings.append(f"{workload.title} may overlap, or starts by an unknown clock")
    return findings


def _has_token_volume(workload: Workload) -> bool:
    sources = [
        it for volume in workload.spec.get("volumes", []) for it in volume.get("projected", {}).get("sources", [])
    ]
    return any("serviceAccountToken" in source for source in sources)


def _judge_budgets(workload: Workload, budgets: list[Manifest]) -> Iterator[str]:
    own = [
        budget["spec"] for budget in budgets
        if budget["metadata"].get("namespace") == workload.namespace
        and selects(budget["spec"].get("selector", {}), workload.labels)
    ]  # fmt: skip
    if len(own) != 1:
        yield f"{workload.title} has {len(own)} PodDisruptionBudgets"
    # A database alone may say 0: its drain waits for a person, on purpose.
    least = 0 if workload.kind == "StatefulSet" and workload.manifest["spec"].get("replicas") == 1 else 1
    for spec in own:
        if spec.get("maxUnavailable", -1) < least or "minAvailable" in spec:
            yield f"{workload.title}: its PodDisruptionBudget can hold up a drain for ever"
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{workload.title}: its PodDisruptionBudget protects pods that are broken"


def _spread_keys(workload: Workload) -> Iterator[str]:
    for constraint in workload.spec.get("topologySpreadConstraints", []):
        keys = constraint.get("matchLabelKeys", [])
        alone = constraint["labelSelector"].get("matchLabels", {}).get("app") == workload.name or "app" in keys
        if selects(constraint["labelSelector"], workload.labels) and alone and "pod-template-hash" in keys:
            yield constraint["topologyKey"]


def _environment(container: Manifest) -> Mapping[str, Any]:
    return {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
