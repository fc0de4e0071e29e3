"""Pod Security Standards, read anew: the fields that `baseline` and `restricted` look at, as of Kubernetes 1.37.

Source: the published standard (kubernetes.io/docs/concepts/security/pod-security-standards), for pods of Linux. Where releases
differ, the strictest from 1.35 on is taken: the two sysctls that 1.37 added are refused, and so is what user namespaces relax.
Each control is a function that yields what it refuses in one pod; test_pod_security_library.py compares all of them with the
library of the API server.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from k8s.tools.rendering import Manifest
from tests.k8s.trees import Findings, Workload, namespace_of, of_kind, workloads_of

LEVELS = ("privileged", "baseline", "restricted")
LABEL = "pod-security.kubernetes.io/enforce"

Control = Callable[[Workload], Iterator[str]]

_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID",
    "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
}  # fmt: skip
_CONFINED = ("RuntimeDefault", "Localhost")
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def find_pod_security_violations(manifests: list[Manifest]) -> Findings:
    """What the API server would refuse, by the level that each namespace enforces. No label means no namespace of ours."""
    levels = {
        namespace["metadata"]["name"]: namespace["metadata"].get("labels", {}).get(LABEL, "privileged")
        for namespace in of_kind(manifests, "Namespace")
    }
    return [
        finding
        for workload in workloads_of(manifests)
        for finding in evaluate(workload, levels.get(namespace_of(workload.manifest), "restricted"))
    ]


def evaluate(workload: Workload, level: str) -> Findings:
    """The violations of one pod template, each with the name of the control that it breaks."""
    controls = {"privileged": (), "baseline": BASELINE, "restricted": (*BASELINE, *RESTRICTED)}[level]
    return [
        f"{workload.title}: {control.__name__.removeprefix('_refuse_')}: {reason}"
        for control in controls
        for reason in control(workload)
    ]


def _refuse_host_namespaces(workload: Workload) -> Iterator[str]:
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if workload.spec.get(name))


def _refuse_privileged_containers(workload: Workload) -> Iterator[str]:
    yield from (name for name, context in _contexts(workload) if context.get("privileged"))


def _refuse_added_capabilities(workload: Workload) -> Iterator[str]:
    for name, context in _contexts(workload):
        if foreign := set(_capabilities(context, "add")) - _CAPABILITIES:
            yield f"{name} adds {', '.join(sorted(foreign))}"


def _refuse_host_paths(workload: Workload) -> Iterator[str]:
    yield from (volume["name"] for volume in workload.spec.get("volumes", []) if "hostPath" in volume)


def _refuse_host_ports(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield container["name"]


def _refuse_host_of_probes(workload: Workload) -> Iterator[str]:
    for container in workload.containers:
        hooks = container.get("lifecycle", {})
        for handler in (*map(container.get, _PROBES), hooks.get("postStart"), hooks.get("preStop")):
            if any((handler or {}).get(way, {}).get("host") for way in ("httpGet", "tcpSocket")):
                yield container["name"]


def _refuse_apparmor(workload: Workload) -> Iterator[str]:
    for name, context in _all_contexts(workload):
        if "appArmorProfile" in context and context["appArmorProfile"].get("type") not in _CONFINED:
            yield name
    for key, value in workload.pod.get("metadata", {}).get("annotations", {}).items():
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/"):
            yield key


def _refuse_selinux(workload: Workload) -> Iterator[str]:
    for name, context in _all_contexts(workload):
        options = context.get("seLinuxOptions", {})
        if options.get("type", "") not in _SELINUX_TYPES or options.get("user") or options.get("role"):
            yield name


def _refuse_proc_mount(workload: Workload) -> Iterator[str]:
    yield from (name for name, context in _contexts(workload) if context.get("procMount", "Default") != "Default")


def _refuse_unconfined_seccomp(workload: Workload) -> Iterator[str]:
    for name, context in _all_contexts(workload):
        if "seccompProfile" in context and context["seccompProfile"].get("type") not in _CONFINED:
            yield name


def _refuse_sysctls(workload: Workload) -> Iterator[str]:
    sysctls = workload.spec.get("securityContext", {}).get("sysctls", [])
    yield from (sysctl["name"] for sysctl in sysctls if sysctl["name"] not in _SYSCTLS)


def _refuse_windows_host_process(workload: Workload) -> Iterator[str]:
    yield from (name for name, it in _all_contexts(workload) if it.get("windowsOptions", {}).get("hostProcess"))


def _refuse_other_volumes(workload: Workload) -> Iterator[str]:
    for volume in workload.spec.get("volumes", []):
        if not volume.keys() & _VOLUMES:
            yield volume["name"]


def _refuse_privilege_escalation(workload: Workload) -> Iterator[str]:
    yield from (name for name, it in _contexts(workload) if it.get("allowPrivilegeEscalation") is not False)


def _refuse_root(workload: Workload) -> Iterator[str]:
    of_pod = workload.spec.get("securityContext", {}).get("runAsNonRoot")
    if of_pod is False:
        yield "the pod"
    yield from (name for name, context in _contexts(workload) if context.get("runAsNonRoot", of_pod) is not True)


def _refuse_user_zero(workload: Workload) -> Iterator[str]:
    yield from (name for name, context in _all_contexts(workload) if context.get("runAsUser") == 0)


def _refuse_no_seccomp(workload: Workload) -> Iterator[str]:
    default = workload.spec.get("securityContext", {}).get("seccompProfile", {})
    for name, context in _contexts(workload):
        if context.get("seccompProfile", default).get("type") not in _CONFINED:
            yield name


def _refuse_kept_capabilities(workload: Workload) -> Iterator[str]:
    for name, context in _contexts(workload):
        if "ALL" not in _capabilities(context, "drop"):
            yield f"{name} does not drop ALL"
        if set(_capabilities(context, "add")) - {"NET_BIND_SERVICE"}:
            yield f"{name} adds some"


BASELINE: tuple[Control, ...] = (
    _refuse_host_namespaces, _refuse_privileged_containers, _refuse_added_capabilities, _refuse_host_paths,
    _refuse_host_ports, _refuse_host_of_probes, _refuse_apparmor, _refuse_selinux, _refuse_proc_mount,
    _refuse_unconfined_seccomp, _refuse_sysctls, _refuse_windows_host_process,
)  # fmt: skip
RESTRICTED: tuple[Control, ...] = (
    _refuse_other_volumes, _refuse_privilege_escalation, _refuse_root, _refuse_user_zero, _refuse_no_seccomp,
    _refuse_kept_capabilities,
)  # fmt: skip


def _contexts(workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The security context of each container, ephemeral ones included."""
    for container in (*workload.containers, *workload.spec.get("ephemeralContainers", [])):
        yield container["name"], container.get("securityContext", {})


def _all_contexts(workload: Workload) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "the pod", workload.spec.get("securityContext", {})
    yield from _contexts(workload)


def _capabilities(context: Mapping[str, Any], way: str) -> list[str]:
    return context.get("capabilities", {}).get(way) or []
