"""Two real nodes beside a running control plane: their networks, their programs, their images, and their end."""

from dataclasses import dataclass
from pathlib import Path

from lab.binaries import CONTAINERD, KUBELET, NETWORK_PLUGINS, Say, build
from lab.kernel import restore_kernel_settings, save_kernel_settings
from lab.kubectl import Kubectl
from lab.network import NAMESPACE, NODE_ADDRESSES, SECOND_NAMESPACE, join_second_network, route_to_second
from lab.places import STATE
from lab.processes import Processes
from lab.real_nodes import NETWORK_RECORDS, NodePrograms, RealNode
from lab.waiting import wait_until

_NAMESPACES = {"node-a": NAMESPACE, "node-b": SECOND_NAMESPACE}
_READY_TIMEOUT_S = 90.0


def prepare_node_programs(say: Say) -> NodePrograms:
    """Build what is not there yet. Raises BuildError."""
    return NodePrograms(build(KUBELET, say), build(CONTAINERD, say), build(NETWORK_PLUGINS, say))


@dataclass(frozen=True)
class RealPair:
    """The two of them."""

    nodes: list[RealNode]

    @classmethod
    def of(cls, programs: NodePrograms, processes: Processes) -> "RealPair":
        keys, state = STATE / "keys", STATE / "nodes"
        return cls(
            [
                RealNode(name, _NAMESPACES[name], address, programs, state / name, keys, processes)
                for name, address in NODE_ADDRESSES.items()
            ]
        )

    def start(self, kubectl: Kubectl, images: list[Path], say: Say) -> None:
        save_kernel_settings(_SAVED)
        join_second_network()
        for node in self.nodes:
            node.prepare()
            node.start_runtime(images)
        first, second = (node.start(kubectl) for node in self.nodes)
        route_to_second(second)
        wait_until(lambda: self._are_ready(kubectl), "ready real nodes", _READY_TIMEOUT_S)
        say(f"node-a ({first}) and node-b ({second}) run containers")

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        restore_kernel_settings(_SAVED)
        for directory in (_SHIMS, NETWORK_RECORDS.parent):
            _remove_empty(directory)

    def _are_ready(self, kubectl: Kubectl) -> bool:
        for node in self.nodes:
            conditions = kubectl.get("node", node.name)["status"]["conditions"]
            if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                return False
        return True


_SAVED = STATE / "kernel.json"
# Where the shims of every containerd on the machine have their sockets, whatever its settings say.
_SHIMS = Path("/run/containerd")


def _remove_empty(directory: Path) -> None:
    """Remove a directory and those inside it, unless there is a file of somebody's."""
    inner = sorted(directory.rglob("*"), reverse=True)
    if all(path.is_dir() for path in inner):
        for path in [*inner, *([directory] if directory.is_dir() else [])]:
            path.rmdir()
