"""Whatever names something else names what is there: accounts, volumes, ConfigMaps, Secrets and their keys, roles."""

from collections.abc import Iterable, Iterator, Mapping

from k8s.tools.rendering import Manifest
from stockade.targets import NAMES, SCHEMAS
from tests.k8s.trees import Findings, Workload, namespace_of, of_kind, title_of, workloads_of

Reference = tuple[str, str, str]
"""Kind, namespace, name."""

SECRETS: Mapping[str, set[str]] = {
    "postgres-secret": {"host", "username", "password"},
    "jwt-secret": {"secret"},
    "database-roles": {f"stockade_{role}" for role in ("owner", *SCHEMAS, "backup")},
    "service-secrets": set(NAMES),
    "postgres-tls": {"tls.crt", "tls.key", "ca.crt"},
    "postgres-object-store": {"access-key-id", "secret-access-key"},
}
"""The Secrets that exist beside the tree, with their keys: two of the specification, three that deploy.sh makes, and that
of whoever uses components/archive-copy."""
CONFIG_MAPS: Mapping[str, set[str]] = {"postgres-restore": {"time", "timeline"}}
"""ConfigMaps that a person makes, as docs/restore.md says."""

_CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "GatewayClass")


def find_broken_references(manifests: list[Manifest]) -> Findings:
    """Accounts, ConfigMaps, claims, roles and their subjects, scale targets, governing Services, classes, issuers."""
    there = _there(manifests)
    wanted = [(it.title, reference) for it in workloads_of(manifests) for reference in _wants_of_pod(it)]
    wanted += [(title_of(it), reference) for it in manifests for reference in _wants_of_object(it)]
    return [
        f"{title} names {'/'.join(reference)}, which is not there"
        for title, reference in wanted
        if reference not in there
    ]


def find_missing_keys(manifests: list[Manifest]) -> Findings:
    """Secrets are on the list, and the keys that pods ask for are in them, as in the ConfigMaps."""
    config_maps = {it["metadata"]["name"]: set(it.get("data", {})) for it in of_kind(manifests, "ConfigMap")}
    known = {"secret": SECRETS, "configMap": {**CONFIG_MAPS, **config_maps}}
    findings: Findings = []
    for workload in workloads_of(manifests):
        for kind, name, keys in (*_mounted_keys(workload), *_keys_of_variables(workload)):
            if name not in known[kind]:
                findings.append(f"{workload.title}: nobody makes the {kind} {name}")
            findings += [
                f"{workload.title}: {name} has no key {it}" for it in sorted(keys - known[kind].get(name, keys))
            ]
    return findings


def find_secrets_of_others(manifests: list[Manifest]) -> Findings:
    """A service mounts its own keys alone; only the user-service signs tokens and compares the secrets of the others."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        for kind, name, keys in _mounted_keys(workload):
            if kind == "secret" and (foreign := (keys or SECRETS.get(name, {name})) - _may_mount(workload, name)):
                findings.append(f"{workload.title} mounts {', '.join(sorted(foreign))} of {name}")
    return findings


def find_dangling_volumes(manifests: list[Manifest]) -> Findings:
    """Every mount has its volume, every volume is mounted, and no container mounts two at one path."""
    findings: Findings = []
    for workload in workloads_of(manifests):
        claims = workload.manifest["spec"].get("volumeClaimTemplates", [])
        volumes = {it["name"] for it in workload.spec.get("volumes", [])} | {it["metadata"]["name"] for it in claims}
        mounts = [
            (container["name"], it) for container in workload.containers for it in container.get("volumeMounts", [])
        ]
        mounted = {mount["name"] for _, mount in mounts}
        findings += [f"{workload.title}: there is no volume {name}" for name in sorted(mounted - volumes)]
        findings += [f"{workload.title}: nobody mounts {name}" for name in sorted(volumes - mounted)]
        paths = [(container, mount["mountPath"]) for container, mount in mounts]
        findings += [
            f"{workload.title}: {it} is there twice" for it in sorted({it for it in paths if paths.count(it) > 1})
        ]
    return findings


def find_secret_variables(manifests: list[Manifest]) -> Findings:
    """Secrets are files: variables show up in crash reports and in what `kubectl describe` prints."""
    return [
        f"{workload.title}: {entry['name']} is a variable with a secret"
        for workload in workloads_of(manifests)
        for container in workload.containers
        for entry in [*container.get("env", []), *({"name": "all of it", **it} for it in container.get("envFrom", []))]
        if "secretKeyRef" in entry.get("valueFrom", {})
        or "secretRef" in entry
        # A path is where a secret lies, and not the secret.
        or (entry["name"].endswith(("PASSWORD", "SECRET", "TOKEN")) and not entry.get("value", "/").startswith("/"))
    ]


def find_stray_namespaces(manifests: list[Manifest]) -> Findings:
    """Every object says its namespace, and the tree makes it."""
    made = {it["metadata"]["name"] for it in of_kind(manifests, "Namespace")}
    return [
        f"{title_of(it)} is in the namespace {namespace_of(it)!r}"
        for it in manifests
        if it["kind"] not in _CLUSTER_WIDE and namespace_of(it) not in made
    ]


def _there(manifests: Iterable[Manifest]) -> set[Reference]:
    there = {(it["kind"], namespace_of(it), it["metadata"]["name"]) for it in manifests}
    for workload in workloads_of(manifests):
        there |= {("ConfigMap", workload.namespace, name) for name in CONFIG_MAPS}
        for claim in workload.manifest["spec"].get("volumeClaimTemplates", []):
            base = f"{claim['metadata']['name']}-{workload.name}"
            numbers = range(workload.manifest["spec"].get("replicas", 1))
            there |= {("PersistentVolumeClaim", workload.namespace, f"{base}-{number}") for number in numbers}
    return there


def _wants_of_pod(workload: Workload) -> Iterator[Reference]:
    yield "ServiceAccount", workload.namespace, workload.spec.get("serviceAccountName", "default")
    for volume in workload.spec.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", workload.namespace, volume["configMap"]["name"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", workload.namespace, volume["persistentVolumeClaim"]["claimName"]
    for kind, name, _ in _keys_of_variables(workload):
        if kind == "configMap":
            yield "ConfigMap", workload.namespace, name


def _wants_of_object(manifest: Manifest) -> Iterator[Reference]:
    spec, namespace = manifest.get("spec", {}), namespace_of(manifest)
    match manifest["kind"]:
        case "HorizontalPodAutoscaler" | "ScaledObject":
            yield spec["scaleTargetRef"].get("kind", "Deployment"), namespace, spec["scaleTargetRef"]["name"]
        case "StatefulSet":
            yield "Service", namespace, spec["serviceName"]
        case "RoleBinding" | "ClusterRoleBinding":
            kind = manifest["roleRef"]["kind"]
            yield kind, namespace if kind == "Role" else "", manifest["roleRef"]["name"]
            yield from ((it["kind"], it.get("namespace", ""), it["name"]) for it in manifest["subjects"])
        case "Gateway":
            yield "GatewayClass", "", spec["gatewayClassName"]
        case "Certificate":
            yield spec["issuerRef"]["kind"], namespace, spec["issuerRef"]["name"]
        case "ScheduledBackup":
            yield "Cluster", namespace, spec["cluster"]["name"]
        case _:
            return


def _mounted_keys(workload: Workload) -> Iterator[tuple[str, str, set[str]]]:
    """Each mounted Secret and ConfigMap with the keys that are named; none named means all of them."""
    for volume in workload.spec.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            for kind in ("secret", "configMap"):
                if found := source.get(kind):
                    yield kind, found.get("secretName") or found["name"], {it["key"] for it in found.get("items", [])}


def _keys_of_variables(workload: Workload) -> Iterator[tuple[str, str, set[str]]]:
    for container in workload.containers:
        for source in container.get("envFrom", []):
            for kind in ("secret", "configMap"):
                if reference := source.get(f"{kind}Ref"):
                    yield kind, reference["name"], set()
        for source in (entry.get("valueFrom", {}) for entry in container.get("env", [])):
            for kind in ("secret", "configMap"):
                if reference := source.get(f"{kind}KeyRef"):
                    yield kind, reference["name"], {reference["key"]}


def _may_mount(workload: Workload, secret: str) -> set[str]:
    """What a pod may know of a Secret. The database and its Jobs hold what they are made for; who faces the outside, nothing."""
    if not workload.is_service:
        return set() if workload.namespace == "inventory-edge" else SECRETS.get(secret, set())
    own = {
        "database-roles": {f"stockade_{workload.name.removesuffix('-service').replace('-', '_')}"},
        "service-secrets": {workload.name},
        "postgres-tls": {"ca.crt"},
    }
    if workload.name == "user-service":
        own |= {"jwt-secret": {"secret"}, "service-secrets": set(NAMES)}
    return own.get(secret, set())
