"""etcd, API server, controller manager and scheduler, with the settings that our own cluster files ask for."""

from dataclasses import dataclass
from pathlib import Path

from lab.cluster_files import install_cluster_files, read_flags
from lab.network import ADDRESS, enter_network
from lab.processes import Processes

SERVICE_ADDRESSES = "10.96.0.0/16"
POD_ADDRESSES = "10.244.0.0/16"

PROGRAMS = ("scheduler", "controller-manager", "api-server", "etcd")
"""In the order in which they end: the API server can still save what it was told, and etcd goes last."""


@dataclass(frozen=True)
class ControlPlane:
    """One control plane: its `programs`, its `keys` from `write_certificates`, and what it writes under `state`."""

    programs: Path
    state: Path
    processes: Processes

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def audit_log(self) -> Path:
        return self.state / "audit.log"

    @property
    def data(self) -> Path:
        return self.state / "etcd"

    def start(self) -> None:
        """Start all four. They wait for each other by themselves; ready is for the caller to ask."""
        self._start("etcd", "etcd", self._etcd_flags())
        install_cluster_files(self.state / "stockade")
        self._start("api-server", "kube-apiserver", self._api_server_flags())
        self._start("controller-manager", "kube-controller-manager", self._controller_manager_flags())
        self._start("scheduler", "kube-scheduler", self._scheduler_flags())

    def _start(self, name: str, program: str, flags: dict[str, str]) -> None:
        command = [str(self.programs / program), *(f"--{flag}={value}" for flag, value in flags.items())]
        self.processes.start(name, enter_network(command))

    def _etcd_flags(self) -> dict[str, str]:
        return {
            "name": "lab",
            "data-dir": str(self.data),
            # The data is thrown away with the cluster, and waiting for the disk is most of what etcd does.
            "unsafe-no-fsync": "true",
            "listen-client-urls": "https://127.0.0.1:2379",
            "advertise-client-urls": "https://127.0.0.1:2379",
            "listen-peer-urls": "http://127.0.0.1:2380",
            "initial-advertise-peer-urls": "http://127.0.0.1:2380",
            "initial-cluster": "lab=http://127.0.0.1:2380",
            "cert-file": f"{self.keys}/etcd.crt",
            "key-file": f"{self.keys}/etcd.key",
            "client-cert-auth": "true",
            "trusted-ca-file": f"{self.keys}/ca.crt",
        }

    def _api_server_flags(self) -> dict[str, str]:
        return self._our_flags("apiServer") | {
            "etcd-servers": "https://127.0.0.1:2379",
            "etcd-cafile": f"{self.keys}/ca.crt",
            "etcd-certfile": f"{self.keys}/api-server-etcd.crt",
            "etcd-keyfile": f"{self.keys}/api-server-etcd.key",
            "bind-address": "0.0.0.0",  # noqa: S104 -- Of a namespace that only this machine reaches.
            "advertise-address": ADDRESS,
            "secure-port": "6443",
            "tls-cert-file": f"{self.keys}/api-server.crt",
            "tls-private-key-file": f"{self.keys}/api-server.key",
            "client-ca-file": f"{self.keys}/ca.crt",
            # Without it validation refuses privileged pods by itself, and Pod Security would never be asked.
            "allow-privileged": "true",
            "service-cluster-ip-range": SERVICE_ADDRESSES,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": f"{self.keys}/service-accounts.pub",
            "service-account-signing-key-file": f"{self.keys}/service-accounts.key",
            "kubelet-client-certificate": f"{self.keys}/api-server-kubelet.crt",
            "kubelet-client-key": f"{self.keys}/api-server-kubelet.key",
            "kubelet-preferred-address-types": "InternalIP",
            "requestheader-client-ca-file": f"{self.keys}/front-ca.crt",
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "proxy-client-cert-file": f"{self.keys}/front.crt",
            "proxy-client-key-file": f"{self.keys}/front.key",
            # metrics-server is no pod here, and no proxy leads to its Service address.
            "enable-aggregator-routing": "true",
            # One file instead of many, so that a test reads all of it: a long evening of `make cluster` writes less than this.
            "audit-log-maxsize": "2000",
        }

    def _controller_manager_flags(self) -> dict[str, str]:
        return (
            self._our_flags("controllerManager")
            | self._own_kubeconfig("controller-manager")
            | {
                "bind-address": "127.0.0.1",
                "tls-cert-file": f"{self.keys}/controller-manager.crt",
                "tls-private-key-file": f"{self.keys}/controller-manager.key",
                "client-ca-file": f"{self.keys}/ca.crt",
                "requestheader-client-ca-file": f"{self.keys}/front-ca.crt",
                "use-service-account-credentials": "true",
                "service-account-private-key-file": f"{self.keys}/service-accounts.key",
                "root-ca-file": f"{self.keys}/ca.crt",
                "cluster-signing-cert-file": f"{self.keys}/ca.crt",
                "cluster-signing-key-file": f"{self.keys}/ca.key",
                "allocate-node-cidrs": "true",
                "cluster-cidr": POD_ADDRESSES,
                "service-cluster-ip-range": SERVICE_ADDRESSES,
                "leader-elect": "false",
            }
        )

    def _scheduler_flags(self) -> dict[str, str]:
        own = self._own_kubeconfig("scheduler") | {"bind-address": "127.0.0.1", "leader-elect": "false"}
        return self._our_flags("scheduler") | own

    def _our_flags(self, component: str) -> dict[str, str]:
        return read_flags(component, installed=self.state / "stockade", keys=self.keys, logs=self.state)

    def _own_kubeconfig(self, user: str) -> dict[str, str]:
        config = f"{self.keys}/{user}.conf"
        return {"kubeconfig": config, "authentication-kubeconfig": config, "authorization-kubeconfig": config}


def prepare_state(state: Path) -> None:
    """Make the directory of a cluster, readable by root alone: it will hold keys."""
    state.mkdir(parents=True, mode=0o700)
    state.chmod(0o700)  # Whatever the umask made of it.
