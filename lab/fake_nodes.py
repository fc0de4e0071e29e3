"""Nodes without a kubelet: kwok answers for them, and metrics-server reads from it what pods are said to use.

A pod there is Running a few seconds after it is scheduled and runs nothing; a volume is bound and holds nothing. The
annotations `kwok.x-k8s.io/usage-cpu` and `kwok.x-k8s.io/usage-memory` of a pod say how much it seems to use.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

from lab.kubectl import Kubectl
from lab.network import ADDRESS, enter_network
from lab.places import CONFIG
from lab.processes import Processes

NODES = ("zone-a", "zone-b", "zone-c")
"""One node in each zone, and named for it."""

PROGRAMS = ("metrics-server", "kwok")

_PORT = 10247
# A pod takes a few seconds for each, as real ones do: a rollout whose pods are ready at once would prove nothing.
_POD_EVENTS = ("create", "init-container-running", "init-container-completed", "ready", "complete", "delete")
# kwok knows no behaviour of its own; these are the files that its project publishes.
_STAGES = (
    "stage/node/fast/node-initialize.yaml",
    "stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    *(f"stage/pod/general/pod-{event}.yaml" for event in _POD_EVENTS),
    *(f"stage/volume/fast/{event}.yaml" for event in ("pvc-provision", "pvc-delete", "pv-bind", "pv-delete")),
    "metrics/resource/metrics-resource.yaml",
    "metrics/usage/usage-from-annotation.yaml",
)


@dataclass(frozen=True)
class FakeNodes:
    """Three of them, and the metrics of their pods. `kwok_sources` is where the sources of kwok lie."""

    kwok: Path
    kwok_sources: Path
    metrics_server: Path
    keys: Path
    processes: Processes

    def start(self, kubectl: Kubectl) -> None:
        """Join the nodes and register the metrics API. Neither is ready yet when this returns."""
        storage_class = self.kwok_sources / "kustomize/stage/volume/fast/storage-class.yaml"
        for path in (CONFIG / "kwok-rbac.yaml", CONFIG / "kwok-nodes.yaml", storage_class):
            kubectl.apply(path.read_text())
        stages = [f"--config={self.kwok_sources / 'kustomize' / stage}" for stage in _STAGES]
        self._start("kwok", [str(self.kwok), *stages, *self._kwok_flags()])
        manifest = (CONFIG / "metrics-server.yaml").read_text()
        authority = base64.b64encode((self.keys / "ca.crt").read_bytes()).decode()
        kubectl.apply(manifest.replace("AUTHORITY", authority).replace("ADDRESS", ADDRESS))
        self._start("metrics-server", [str(self.metrics_server), *self._metrics_server_flags()])

    def _start(self, name: str, command: list[str]) -> None:
        self.processes.start(name, enter_network(command))

    def _kwok_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.keys}/kwok.conf",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            f"--node-ip={ADDRESS}",
            f"--node-port={_PORT}",
            f"--tls-cert-file={self.keys}/kwok.crt",
            f"--tls-private-key-file={self.keys}/kwok.key",
            "--node-lease-duration-seconds=40",
            # Apart from the addresses of pods on real nodes.
            "--cidr=10.245.0.0/16",
        ]

    def _metrics_server_flags(self) -> list[str]:
        config = f"{self.keys}/metrics-server.conf"
        return [
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={ADDRESS}",
            "--secure-port=4443",
            f"--tls-cert-file={self.keys}/metrics-server.crt",
            f"--tls-private-key-file={self.keys}/metrics-server.key",
            f"--kubelet-certificate-authority={self.keys}/ca.crt",
            f"--kubelet-client-certificate={self.keys}/api-server-kubelet.crt",
            f"--kubelet-client-key={self.keys}/api-server-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--kubelet-use-node-status-port",
            # The resolution has to be longer than the time-out.
            "--kubelet-request-timeout=5s",
            "--metric-resolution=10s",
        ]
