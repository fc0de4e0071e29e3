"""One cluster from start to end. There is at most one on a machine, and every command finds the same."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import control_plane, fake_nodes
from lab.binaries import CONTROL_PLANE, METRICS, build, fetch_module
from lab.certificates import write_certificates
from lab.control_plane import ControlPlane, prepare_state
from lab.definitions import SOURCES, Source, fetch_definitions
from lab.fake_nodes import FakeNodes
from lab.images import make_pause
from lab.kubectl import Kubectl, KubectlError
from lab.network import create_network, has_network, remove_network
from lab.node_settings import PAUSE_IMAGE
from lab.places import STATE
from lab.processes import ProcessError, Processes
from lab.real_pair import RealPair, prepare_node_programs
from lab.traces import find_traces
from lab.waiting import wait_until

Say = Callable[[str], None]

_READY_TIMEOUT_S = 90.0


class ClusterError(Exception):
    """A cluster is there when none should be, or the other way round; or something of it would not go."""


@dataclass(frozen=True)
class Programs:
    """Where the parts of a cluster lie: directories of programs, kwok's sources and the definitions of each source."""

    control_plane: Path
    metrics: Path
    kwok_sources: Path
    definitions: dict[Source, list[Path]]

    @classmethod
    def prepare(cls, say: Say) -> "Programs":
        """Build and fetch whatever is not there yet. Raises BuildError."""
        return cls(
            build(CONTROL_PLANE, say),
            build(METRICS, say),
            fetch_module("kubernetes", "sigs.k8s.io/kwok"),
            {source: fetch_definitions(source) for source in SOURCES},
        )


class Cluster:
    """The control plane, three simulated nodes, metrics, and the definitions of prerequisites. Nothing of ours yet."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.processes = Processes(STATE / "processes")
        self.control_plane = ControlPlane(programs.control_plane, STATE, self.processes)
        self.kubectl = Kubectl(programs.control_plane / "kubectl", self.control_plane.keys / "admin.conf")

    @property
    def definitions(self) -> Path:
        """For `k8s/deploy.sh --definitions`."""
        return STATE / "definitions"

    @classmethod
    def start(cls, programs: Programs, say: Say) -> "Cluster":
        """Start an empty one, after `check_alone`. What had begun when it fails is for `stop_cluster` to remove."""
        started = time.monotonic()
        cluster = cls(programs)
        prepare_state(STATE)
        write_certificates(cluster.control_plane.keys)
        create_network()
        cluster.control_plane.start()
        cluster._wait_for_api()
        say(f"API server ready after {time.monotonic() - started:.1f} s")
        cluster._install_definitions()
        cluster._start_nodes()
        say(f"{len(fake_nodes.NODES)} nodes ready after {time.monotonic() - started:.1f} s")
        return cluster

    @classmethod
    def attach(cls, programs: Programs) -> "Cluster":
        """Find the one that runs. Raises ClusterError if none does."""
        cluster = cls(programs)
        if "api-server" not in cluster.processes.list_running():
            raise ClusterError("no cluster is running: `make cluster` starts one")
        return cluster

    def join_real_nodes(self, images: Iterable[Path], say: Say) -> None:
        """Join two nodes that run containers, with these image archives loaded, and let pods go to them alone."""
        programs = prepare_node_programs(say)
        pause = make_pause(PAUSE_IMAGE).write(STATE / "pause.tar")
        RealPair.of(programs, self.processes).start(self.kubectl, [pause, *images], say)
        self.kubectl("cordon", *fake_nodes.NODES)

    def _wait_for_api(self) -> None:
        self._wait(lambda: self.kubectl("get", "--raw=/readyz") == "ok", "ready API server")
        # The controllers have come to work when they have made this.
        self._wait(lambda: self.kubectl.find("serviceaccount", "default") is not None, "default ServiceAccount")

    def _install_definitions(self) -> None:
        """Install those of the prerequisites, and lay the others ready for k8s/deploy.sh, which wants plain files."""
        self.definitions.mkdir()
        for source, files in self.programs.definitions.items():
            if source.is_prerequisite:
                self.kubectl.apply("\n---\n".join(path.read_text() for path in files))
            else:
                for path in files:
                    shutil.copy(path, self.definitions)
        self.kubectl("wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")

    def _start_nodes(self) -> None:
        nodes = FakeNodes(
            self.programs.control_plane / "kwok", self.programs.kwok_sources, self.programs.metrics / "metrics-server",
            self.control_plane.keys, self.processes,
        )  # fmt: skip
        nodes.start(self.kubectl)
        self._wait(lambda: len(self._list_ready_nodes()) == len(fake_nodes.NODES), "ready nodes")

    def _list_ready_nodes(self) -> list[str]:
        return [
            node["metadata"]["name"]
            for node in self.kubectl.get("nodes")
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
        ]

    def _wait(self, is_done: Callable[[], bool], what: str) -> None:
        """Wait for it, but not for a program that has given up."""

        def ask() -> bool:
            self.processes.check()
            try:
                return is_done()
            except KubectlError:
                return False

        wait_until(ask, what, _READY_TIMEOUT_S)


def check_alone() -> None:
    """Raise ClusterError when there is a cluster already: it may be what a person is looking at."""
    if STATE.exists() or has_network():
        raise ClusterError("there is a cluster already, or what is left of one: `make cluster-down` removes it")


def stop_cluster(say: Say) -> None:
    """End whatever there is of a cluster and remove its traces. Raises ClusterError naming what would not go."""
    if not find_traces():
        return
    processes = Processes(STATE / "processes")
    try:
        if (STATE / "nodes").exists():
            RealPair.of(prepare_node_programs(say), processes).stop()
        for group in (fake_nodes.PROGRAMS, *((name,) for name in control_plane.PROGRAMS)):
            processes.stop(*group)
    except ProcessError as error:
        raise ClusterError(str(error)) from error
    remove_network()
    shutil.rmtree(STATE, ignore_errors=True)
    traces = find_traces()
    if traces:
        raise ClusterError(f"still there: {', '.join(traces)}")
    say("no process, namespace, mount or file of the cluster is left")
