"""Nodes that run containers: kubelet, containerd, runc, a network for pods, and kube-proxy, in a network namespace each.

Two of them share this machine's kernel and nothing else: each has its own containerd with its own images, its own
control groups, its own addresses, and its packets to the other cross a wire.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.control_groups import make_control_groups, remove_control_groups
from lab.kubectl import Kubectl
from lab.network import NAMESPACE, enter_network
from lab.node_settings import make_kube_proxy, make_kubelet, make_pod_network, write_containerd
from lab.processes import Processes
from lab.waiting import wait_until

NETWORK_RECORDS = Path("/var/lib/cni/results")
"""Where network plugins note what they did for a container, whatever their settings say."""

_READY_TIMEOUT_S = 60.0
_COMMAND_TIMEOUT_S = 120.0
_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class NodePrograms:
    """Where the programs of a node lie."""

    kubelet: Path
    containerd: Path
    network_plugins: Path


@dataclass(frozen=True)
class RealNode:
    """One node. `state` is its own directory, `keys` that of the cluster; `namespace` is its network."""

    name: str
    namespace: str
    address: str
    programs: NodePrograms
    state: Path
    keys: Path
    processes: Processes

    @property
    def socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def control_group(self) -> str:
        """Below this one lie those of all its pods, so that two kubelets do not clean up after each other."""
        return f"{NAMESPACE}-{self.name}"

    def prepare(self) -> None:
        """Write what its programs read. Its keys were made with those of the cluster."""
        (self.state / "network.d").mkdir(parents=True)
        (self.state / "containerd.toml").write_text(write_containerd(self.state, self.programs.network_plugins))
        kubelet = make_kubelet(
            self.name, self.address, state=self.state, keys=self.keys, control_group=self.control_group
        )
        (self.state / "kubelet.json").write_text(json.dumps(kubelet, indent=2))
        kube_proxy = make_kube_proxy(self.name, self.address, keys=self.keys)
        (self.state / "kube-proxy.json").write_text(json.dumps(kube_proxy, indent=2))
        make_control_groups(self.control_group)

    def start_runtime(self, images: list[Path]) -> None:
        """Start containerd and load the images into it."""
        program = str(self.programs.containerd / "containerd")
        self._start("containerd", [program, "--config", str(self.state / "containerd.toml")])
        wait_until(self._answers, f"containerd of {self.name}", _READY_TIMEOUT_S)
        for image in images:
            self.ctr("images", "import", str(image))

    def start(self, kubectl: Kubectl) -> str:
        """Join the cluster, and return the range of addresses that its pods get. It is Ready soon after."""
        kubelet = [
            str(self.programs.kubelet / "kubelet"),
            f"--config={self.state}/kubelet.json",
            f"--kubeconfig={self.keys / self.name}.conf",
            f"--hostname-override={self.name}",
            f"--node-ip={self.address}",
            f"--root-dir={self.state}/kubelet",
            f"--cert-dir={self.state}/kubelet/pki",
        ]
        self._start("kubelet", kubelet)
        self._start("kube-proxy", [str(self.programs.kubelet / "kube-proxy"), f"--config={self.state}/kube-proxy.json"])
        wait_until(
            lambda: bool(self.find_pod_addresses(kubectl)), f"addresses for pods on {self.name}", _READY_TIMEOUT_S
        )
        pod_addresses = self.find_pod_addresses(kubectl)
        network = make_pod_network(pod_addresses, state=self.state)
        (self.state / "network.d/10-lab.conflist").write_text(json.dumps(network, indent=2))
        return pod_addresses

    def find_pod_addresses(self, kubectl: Kubectl) -> str:
        """The range that the controller manager gave to the node, or nothing yet."""
        node = kubectl.find("node", self.name)
        return node["spec"].get("podCIDR", "") if node else ""

    def ctr(self, *arguments: str, check: bool = True) -> str:
        """Ask containerd directly, as nobody on a real node would have to."""
        command = [str(self.programs.containerd / "ctr"), f"--address={self.socket}", "--namespace=k8s.io", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=check)
        return done.stdout

    def stop(self) -> None:
        """End the node, its containers and their mounts, whatever state it is in."""
        self.processes.stop(f"{self.name}-kubelet", f"{self.name}-kube-proxy")
        if self._answers():
            self._end_containers()
        self.processes.stop(f"{self.name}-containerd")
        for point in find_mounts(self.state):
            subprocess.run(["umount", "--lazy", point], check=False, timeout=_COMMAND_TIMEOUT_S)
        remove_control_groups(self.control_group)
        shutil.rmtree(self.state, ignore_errors=True)

    def _end_containers(self) -> None:
        """What is gone meanwhile needs no ending, so that a refusal here means nothing."""
        for task in self.ctr("tasks", "list", "--quiet").split():
            self.ctr("tasks", "kill", "--signal=SIGKILL", task, check=False)
            self.ctr("tasks", "delete", "--force", task, check=False)
        for container in self.ctr("containers", "list", "--quiet").split():
            self.ctr("containers", "delete", container, check=False)
            for record in NETWORK_RECORDS.glob(f"*-{container}-*"):
                record.unlink()

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        command = [str(self.programs.containerd / "ctr"), f"--address={self.socket}", "version"]
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0

    def _start(self, name: str, command: list[str]) -> None:
        # containerd finds its shims on the PATH.
        path = {"PATH": f"{self.programs.containerd}:{_PATH}"}
        self.processes.start(f"{self.name}-{name}", enter_network(command, self.namespace), environment=path)


def find_mounts(directory: Path) -> list[str]:
    """Mount points below a directory, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(directory)), reverse=True)
