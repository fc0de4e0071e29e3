"""The reading of the Pod Security Standards: what each control refuses, at which level, and what it leaves alone."""

import copy
from typing import Any

import pytest

from k8s.tools.rendering import Manifest
from tests.k8s.pod_security import LABEL, evaluate, find_pod_security_violations
from tests.k8s.trees import Workload

SAFE: Manifest = {
    "metadata": {"labels": {"app": "example"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [
            {
                "name": "first",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "containers": [
            {
                "name": "server",
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    },
}
POD = "securityContext"
SERVER = "containers.0"
FIRST = "initContainers.0.securityContext"
OWN = f"{SERVER}.securityContext"

# A path below `spec`, the value that is put there, and the control that has to name it.
REFUSED_AT_BASELINE: list[tuple[str, Any, str]] = [
    ("hostNetwork", True, "host_namespaces"),
    ("hostPID", True, "host_namespaces"),
    ("hostIPC", True, "host_namespaces"),
    (f"{OWN}.privileged", True, "privileged_containers"),
    (f"{FIRST}.privileged", True, "privileged_containers"),
    (f"{OWN}.capabilities.add", ["NET_ADMIN"], "added_capabilities"),
    (f"{FIRST}.capabilities.add", ["SYS_ADMIN"], "added_capabilities"),
    ("volumes.0", {"name": "scratch", "hostPath": {"path": "/"}}, "host_paths"),
    (f"{SERVER}.ports.0.hostPort", 8080, "host_ports"),
    (f"{SERVER}.readinessProbe.httpGet.host", "192.0.2.1", "host_of_probes"),
    (f"{SERVER}.lifecycle", {"preStop": {"tcpSocket": {"host": "192.0.2.1", "port": 1}}}, "host_of_probes"),
    (f"{POD}.appArmorProfile", {"type": "Unconfined"}, "apparmor"),
    (f"{OWN}.appArmorProfile", {"type": "Unconfined"}, "apparmor"),
    (f"{POD}.seLinuxOptions", {"type": "spc_t"}, "selinux"),
    (f"{OWN}.seLinuxOptions", {"user": "system_u"}, "selinux"),
    (f"{FIRST}.seLinuxOptions", {"role": "system_r"}, "selinux"),
    (f"{OWN}.procMount", "Unmasked", "proc_mount"),
    (f"{POD}.seccompProfile", {"type": "Unconfined"}, "unconfined_seccomp"),
    (f"{OWN}.seccompProfile", {"type": "Unconfined"}, "unconfined_seccomp"),
    (f"{POD}.seccompProfile", {}, "unconfined_seccomp"),
    (f"{POD}.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctls"),
    (f"{POD}.windowsOptions", {"hostProcess": True}, "windows_host_process"),
]
REFUSED_AT_RESTRICTED: list[tuple[str, Any, str]] = [
    ("volumes.0", {"name": "scratch", "nfs": {"server": "192.0.2.1", "path": "/"}}, "other_volumes"),
    (f"{OWN}.allowPrivilegeEscalation", True, "privilege_escalation"),
    (f"{FIRST}.allowPrivilegeEscalation", None, "privilege_escalation"),
    (f"{POD}.runAsNonRoot", False, "root"),
    (f"{POD}.runAsNonRoot", None, "root"),
    (f"{OWN}.runAsNonRoot", False, "root"),
    (f"{POD}.runAsUser", 0, "user_zero"),
    (f"{FIRST}.runAsUser", 0, "user_zero"),
    (f"{POD}.seccompProfile", None, "no_seccomp"),
    ("volumes.0", {"name": "unsaid"}, "other_volumes"),
    (f"{OWN}.capabilities.drop", ["NET_RAW"], "kept_capabilities"),
    (f"{FIRST}.capabilities", {}, "kept_capabilities"),
    (f"{OWN}.capabilities.add", ["CHOWN"], "kept_capabilities"),
]
ACCEPTED: list[tuple[str, Any]] = [
    ("hostNetwork", False),
    (f"{OWN}.capabilities.add", ["NET_BIND_SERVICE"]),
    (f"{OWN}.seccompProfile", {"type": "Localhost", "localhostProfile": "stockade.json"}),
    (f"{OWN}.runAsNonRoot", True),
    (f"{POD}.runAsUser", 10001),
    (f"{POD}.sysctls", [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]),
    (f"{POD}.appArmorProfile", {"type": "RuntimeDefault"}),
    (f"{POD}.seLinuxOptions", {"type": "container_t", "level": "s0:c1,c2"}),
    ("volumes.0", {"name": "scratch", "persistentVolumeClaim": {"claimName": "data"}}),
]


def test_the_safe_example_is_restricted() -> None:
    assert evaluate(make_workload(SAFE), "restricted") == []


@pytest.mark.parametrize(("path", "value", "control"), REFUSED_AT_BASELINE)
def test_baseline_refuses_what_reaches_the_node(path: str, value: Any, control: str) -> None:
    changed = change_safe(path, value)
    for level in ("baseline", "restricted"):
        assert any(f": {control}: " in finding for finding in evaluate(changed, level))
    assert evaluate(changed, "privileged") == []


@pytest.mark.parametrize(("path", "value", "control"), REFUSED_AT_RESTRICTED)
def test_restricted_refuses_more_and_baseline_does_not(path: str, value: Any, control: str) -> None:
    changed = change_safe(path, value)
    assert any(f": {control}: " in finding for finding in evaluate(changed, "restricted"))
    assert evaluate(changed, "baseline") == []


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
def test_it_leaves_alone_what_the_standard_allows(path: str, value: Any) -> None:
    assert evaluate(change_safe(path, value), "restricted") == []


def test_the_annotation_of_old_says_apparmor_too() -> None:
    pod = copy.deepcopy(SAFE)
    pod["metadata"]["annotations"] = {"container.apparmor.security.beta.kubernetes.io/server": "unconfined"}
    assert len(evaluate(make_workload(pod), "baseline")) == 1


def test_every_pod_is_judged_by_the_level_of_its_namespace() -> None:
    risky = change_safe("hostNetwork", True).manifest
    for level, expected in (("restricted", 1), ("baseline", 1), ("privileged", 0)):
        namespace = {"kind": "Namespace", "metadata": {"name": "example", "labels": {LABEL: level}}}
        assert len(find_pod_security_violations([namespace, risky])) == expected
    assert len(find_pod_security_violations([risky])) == 1, "a namespace that is not ours counts as restricted"


def make_workload(pod: Manifest) -> Workload:
    manifest = {
        "kind": "Deployment",
        "metadata": {"name": "example", "namespace": "example"},
        "spec": {"template": pod},
    }
    return Workload(manifest, pod)


def change_safe(path: str, value: Any) -> Workload:
    """The safe example with one field set, or removed where the value is None."""
    pod = copy.deepcopy(SAFE)
    *parents, last = path.split(".")
    place: Any = pod["spec"]
    for key in parents:
        place = place[int(key)] if key.isdigit() else place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return make_workload(pod)
