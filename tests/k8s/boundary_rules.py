"""What keeps the inside in and the outside out: namespaces, policies, roles, exposed ports, and no secret in the tree."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from k8s.tools.connections import STRANGER, Way, find_allowed, find_pods, read_matrix
from k8s.tools.rendering import Manifest
from tests.k8s.trees import Findings, namespace_of, of_kind, selects, title_of, workloads_of

RELEASE = "v1.35"
"""The oldest supported release of Kubernetes, which the Pod Security of the namespaces is pinned to."""
SILENT = ("postgres-restore",)
"""Workloads that talk to nobody."""
EXPOSED = ("traefik",)
"""The Services that are reached from outside."""

_WAYS: tuple[Way, ...] = ("Ingress", "Egress")
_EVERYTHING: Mapping[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
_GRANTING_VERBS = {"*", "escalate", "bind", "impersonate"}
# A private key, a password in a URL, a token, or a setting whose name says what it is, with a value behind it.
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^@\s/]+@|\beyJ[\w-]{10,}\.eyJ|"
    r"(?im:^\s*\"?(?:password|passwd|secret|token|api[_-]?key)\"?\s*[:=]\s*['\"]?[^\s'\"$/{]{6,})"
)


def find_open_namespaces(manifests: list[Manifest]) -> Findings:
    """Each namespace is restricted by a pinned release, denies by default, is bounded, and its default account is mute."""
    return [
        f"Namespace/{namespace['metadata']['name']} {flaw}"
        for namespace in of_kind(manifests, "Namespace")
        for flaw in _flaws_of(namespace, [it for it in manifests if namespace_of(it) == namespace["metadata"]["name"]])
    ]


def find_policy_gaps(manifests: list[Manifest]) -> Findings:
    """The policies allow what connections.yaml lists, both ways, no more and no less."""
    matrix = read_matrix(manifests, components=_components_in(manifests))
    findings: Findings = []
    for way in _WAYS:
        allowed, listed = find_allowed(manifests, matrix, way), matrix.of_side(way)
        findings += [f"{way}: {it} is allowed and not listed" for it in sorted(allowed - listed)]
        findings += [f"{way}: {it} is listed and not allowed" for it in sorted(listed - allowed)]
    return findings


def find_unlisted_pods(manifests: list[Manifest]) -> Findings:
    """Every pod is one party of connections.yaml, because nobody judges the policies of a pod that it does not know."""
    parties = [it for it in read_matrix(manifests).parties.values() if it.ours and not it.name.startswith(STRANGER)]
    findings: Findings = []
    for namespace, labels in find_pods(manifests):
        names = [it.name for it in parties if it.namespace == namespace and it.labels.items() <= labels.items()]
        if len(names) != 1:
            findings.append(f"{labels.get('app')} in {namespace} is {' and '.join(names) or 'not'} in connections.yaml")
    return findings


def find_unpoliced_pods(manifests: list[Manifest]) -> Findings:
    """Each pod has a policy of its own, for both ways. Who talks to nobody is content with the default."""
    policies = [it for it in of_kind(manifests, "NetworkPolicy") if it["spec"]["podSelector"]]
    return [
        f"{workload.title} has no policy of its own for {way}"
        for workload in workloads_of(manifests)
        if workload.name not in SILENT
        for way in _WAYS
        if not any(
            namespace_of(it) == workload.namespace
            and way in it["spec"]["policyTypes"]
            and selects(it["spec"]["podSelector"], workload.labels)
            for it in policies
        )
    ]


def find_wide_roles(manifests: list[Manifest]) -> Findings:
    """No wildcard, nothing that grants more than one has, no Secret of another namespace, and nobody is an administrator."""
    findings: Findings = []
    for role in of_kind(manifests, "Role", "ClusterRole"):
        for rule in role.get("rules", []):
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            if "*" in words or words & _GRANTING_VERBS:
                findings.append(f"{title_of(role)} grants {', '.join(sorted(words & _GRANTING_VERBS))}")
            if role["kind"] == "ClusterRole" and "secrets" in rule["resources"]:
                findings.append(f"{title_of(role)} reads the Secrets of every namespace")
            beyond_status = [it for it in rule["resources"] if not it.endswith("/status")]
            if beyond_status and {"create", "update", "patch", "delete"} & set(rule["verbs"]):
                findings.append(f"{title_of(role)} changes {', '.join(rule['resources'])}")
    for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding"):
        if binding["roleRef"]["name"] in ("cluster-admin", "admin", "edit"):
            findings.append(f"{title_of(binding)} makes an administrator")
        if strangers := [it for it in binding["subjects"] if it["kind"] != "ServiceAccount" or it["name"] == "default"]:
            findings.append(f"{title_of(binding)} is for {strangers}")
    return findings


def find_exposed_ports(manifests: list[Manifest]) -> Findings:
    """One Service is reached from outside. No node opens a port, no address is claimed."""
    return [
        f"{title_of(it)} is exposed"
        for it in of_kind(manifests, "Service")
        if (it["spec"].get("type", "ClusterIP") != "ClusterIP" and it["metadata"]["name"] not in EXPOSED)
        or it["spec"].get("externalIPs")
        or it["spec"].get("type") in ("NodePort", "ExternalName")
    ]


def find_secrets(manifests: list[Manifest]) -> Findings:
    """No Secret is in the tree, and nothing that looks like one is in a ConfigMap, a variable or an annotation."""
    return [
        *(f"{title_of(it)} is in the tree" for it in of_kind(manifests, "Secret")),
        *(
            f"{title_of(manifest)} holds what looks like a secret: {found[0][:24]}..."
            for manifest in manifests
            for text in _texts_of(manifest)
            if (found := _SECRET.search(text))
        ),
    ]


def _components_in(manifests: list[Manifest]) -> list[str]:
    """The components of connections.yaml that a tree was made with, by what they leave in it."""
    signs = {
        "acme": any("acme" in it["spec"] for it in of_kind(manifests, "Issuer")),
        "cloudnative-pg": bool(of_kind(manifests, "Cluster")),
    }
    return [component for component, is_used in signs.items() if is_used]


def _flaws_of(namespace: Manifest, inside: list[Manifest]) -> Iterator[str]:
    labels = namespace["metadata"].get("labels", {})
    for mode in ("enforce", "warn", "audit"):
        key = f"pod-security.kubernetes.io/{mode}"
        if (labels.get(key), labels.get(f"{key}-version")) != ("restricted", RELEASE):
            yield f"does not {mode} restricted of {RELEASE}"
    if not any(it["spec"] == _EVERYTHING for it in of_kind(inside, "NetworkPolicy")):
        yield "does not deny by default both ways"
    if not any(it["spec"]["hard"] for it in of_kind(inside, "ResourceQuota")):
        yield "has no quota"
    if not any(it["spec"]["limits"] for it in of_kind(inside, "LimitRange")):
        yield "has no limits for containers that say none"
    accounts = [it for it in of_kind(inside, "ServiceAccount") if it["metadata"]["name"] == "default"]
    if [it.get("automountServiceAccountToken") for it in accounts] != [False]:
        yield "has a default account with a token"


def _texts_of(value: Any) -> Iterator[str]:
    """Every text of an object, a variable together with its name."""
    if isinstance(value, dict):
        if isinstance(value.get("name"), str) and isinstance(value.get("value"), str):
            yield f"{value['name'].rpartition('_')[2]}: {value['value']}"
        for key, inner in value.items():
            if isinstance(inner, str):
                yield f"{key}: {inner}" if "\n" not in inner else inner
            else:
                yield from _texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from [inner] if isinstance(inner, str) else _texts_of(inner)
