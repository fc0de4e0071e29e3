"""The command line of the lab: `python -m lab up`, `down`, `test`, `build`, which the Makefile calls.

Exit codes: 0 done, or skipped because this machine cannot; 1 it failed; 2 wrong usage.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter

from lab.binaries import BuildError
from lab.cluster import Cluster, ClusterError, Programs, check_alone, stop_cluster
from lab.kubectl import KubectlError
from lab.machine import CONTROL_PLANE_TOOLS, REAL_NODE_TOOLS, MachineError, Tool, find_obstacles, install_missing
from lab.network import NetworkError
from lab.places import PROJECT, STATE
from lab.processes import ProcessError
from lab.waiting import WaitError

app = App(name="lab", help="A real Kubernetes cluster on this machine, to try and to test the manifests on.")

_FAILURES = (BuildError, ClusterError, KubectlError, MachineError, NetworkError, ProcessError, WaitError)
# The window of the autoscaler is five minutes long, and one test waits for all of it.
_TEST_TIMEOUT_S = "900"


@app.command
def build() -> None:
    """Build and fetch all that a cluster needs, and start nothing."""
    if _can_run("the build"):
        _prepare()


@app.command
def up(
    *,
    real_nodes: Annotated[bool, Parameter(negative="", help="Join two nodes that run containers, too.")] = False,
    image: Annotated[tuple[Path, ...], Parameter(help="An image archive to load on them; may be repeated.")] = (),
) -> None:
    """Start a cluster and leave it running."""
    tools = REAL_NODE_TOOLS if real_nodes else CONTROL_PLANE_TOOLS
    if not _can_run("the cluster", tools):
        return
    check_alone()
    programs = _prepare(tools)
    _fail_when_told_to_end()
    try:
        cluster = Cluster.start(programs, _say)
        if real_nodes:
            cluster.join_real_nodes(image, _say)
    except BaseException:
        stop_cluster(_say)
        raise
    _say(f"ready: export KUBECONFIG={STATE}/keys/admin.conf PATH={programs.control_plane}:$PATH")
    what_runs = "pods run containers" if real_nodes else "pods are simulated: they run, and do nothing"
    _say(f"then: k8s/deploy.sh --definitions {STATE}/definitions ({what_runs})")
    _say("`make cluster-down` ends it")


@app.command
def down() -> None:
    """End the cluster and remove every trace of it."""
    stop_cluster(_say)


@app.command(name="test")
def run_tests(*arguments: Annotated[str, Parameter(allow_leading_hyphen=True, help="For pytest.")]) -> None:
    """Start an empty cluster, run tests/cluster against it, and end it, whatever happens."""
    if not _can_run("the tests of k8s/ on a real API server (tests/cluster)"):
        return
    check_alone()
    programs = _prepare()
    started = time.monotonic()
    _fail_when_told_to_end()
    try:
        Cluster.start(programs, _say)
        command = [sys.executable, "-m", "pytest", f"--timeout={_TEST_TIMEOUT_S}", *(arguments or ("tests/cluster",))]
        code = subprocess.run(command, cwd=PROJECT, check=False).returncode
    finally:
        stop_cluster(_say)
    _say(f"{time.monotonic() - started:.0f} s in all")
    sys.exit(code)


def main() -> None:
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(2, str(error))
    except _FAILURES as error:
        _fail(1, str(error))


def _can_run(what: str, tools: tuple[Tool, ...] = CONTROL_PLANE_TOOLS) -> bool:
    obstacles = find_obstacles(tools)
    if obstacles:
        _say(f"skipped here: {what}; {'; '.join(obstacles)}")
    return not obstacles


def _prepare(tools: tuple[Tool, ...] = CONTROL_PLANE_TOOLS) -> Programs:
    install_missing(tools, _say)
    return Programs.prepare(_say)


def _fail_when_told_to_end() -> None:
    """Being told to end (SIGTERM) is one more way to fail, so that the cluster is taken down on that way, too."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise ClusterError("told to end")

    signal.signal(signal.SIGTERM, give_up)


def _say(line: str) -> None:
    print(f"lab: {line}", flush=True)


def _fail(code: int, line: str) -> NoReturn:
    print(f"lab: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
