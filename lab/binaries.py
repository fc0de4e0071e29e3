"""The programs of the lab, built from Go modules and kept by version.

Each folder of `lab/modules` is a Go module that pins one product with everything under it by hash. One module for all
products does not compile: each wants other versions of the same libraries.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.places import CACHE, MODULES

Say = Callable[[str], None]

KUBERNETES_VERSION = "1.37.2"

_PROGRESS_EVERY_S = 20
_BUILD_TIMEOUT_S = 3600
_DOWNLOAD_TIMEOUT_S = 600
_NICENESS = "15"


class BuildError(Exception):
    """Go could not build or fetch something; the text is the end of what it said."""


def _kubernetes_variables() -> dict[str, str]:
    """What the programs answer when they are asked for their version. Fixed, so that two builds give the same bytes."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    values = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "lab",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


@dataclass(frozen=True)
class Group:
    """Programs that are built together from one module."""

    name: str
    module: str
    packages: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def flags(self) -> list[str]:
        settings = [f"-X {name}={value}" for name, value in self.variables.items()]
        return ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s -w", *settings])]

    @property
    def programs(self) -> list[str]:
        return [package.rsplit("/", 1)[1] for package in self.packages]


CONTROL_PLANE = Group(
    "control-plane",
    "kubernetes",
    (
        "./cmd/etcd",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubectl",
        "sigs.k8s.io/kwok/cmd/kwok",
    ),
    _kubernetes_variables(),
)
METRICS = Group("metrics-server", "metrics-server", ("sigs.k8s.io/metrics-server/cmd/metrics-server",))
KUBELET = Group(
    "kubelet",
    "kubernetes",
    ("k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"),
    _kubernetes_variables(),
)
CONTAINERD = Group(
    "containerd",
    "node",
    tuple(
        f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    {"github.com/containerd/containerd/v2/version.Version": "v2.4.2"},
)
NETWORK_PLUGINS = Group(
    "network-plugins",
    "node",
    tuple(
        f"github.com/containernetworking/plugins/plugins/{name}"
        for name in ("main/ptp", "main/loopback", "ipam/host-local", "meta/portmap")
    ),
)


def build(group: Group, say: Say) -> Path:
    """Return the directory with the group's programs, building them unless this version was built before.

    A cold build of the control plane takes seven minutes on two free cores. Raises BuildError.
    """
    directory = CACHE / "bin" / f"{group.name}-{_digest(group)}"
    if all((directory / program).is_file() for program in group.programs):
        return directory
    unfinished = directory.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    say(f"building {', '.join(group.programs)} (cached afterwards in {directory.parent})")
    try:
        _run_build(group, unfinished, say)
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def fetch_module(module: str, path: str) -> Path:
    """Return the directory that holds the sources of `path`, at the version and hash that our `module` pins."""
    _run(["go", "mod", "download", path], module)
    return Path(_run(["go", "list", "-m", "-f", "{{.Dir}}", path], module).strip())


def _digest(group: Group) -> str:
    """Changes with everything that decides what is built."""
    content = hashlib.sha256("\0".join([*group.flags, *group.packages]).encode())
    for path in sorted((MODULES / group.module).rglob("*")):
        if path.is_file():
            content.update(path.read_bytes())
    return content.hexdigest()[:12]


def _run_build(group: Group, output: Path, say: Say) -> None:
    """Build, and tell now and then how far it is: minutes of silence look like a hang."""
    log = output / "build.log"
    command = ["nice", "-n", _NICENESS, "go", "build", "-v", *group.flags, "-o", f"{output}/", *group.packages]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=MODULES / group.module, env=_environment(), stderr=stream)
    started = time.monotonic()
    try:
        while (left_s := started + _BUILD_TIMEOUT_S - time.monotonic()) > 0:
            try:
                process.wait(timeout=min(left_s, _PROGRESS_EVERY_S))
                break
            except subprocess.TimeoutExpired:
                compiled = len([line for line in log.read_text().splitlines() if not line.startswith("go: ")])
                say(f"building {group.name}: {compiled} packages in {time.monotonic() - started:.0f} s")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        raise BuildError(f"building {group.name} failed: {' / '.join(log.read_text().splitlines()[-5:])}")
    log.unlink()


def _run(command: list[str], module: str) -> str:
    done = subprocess.run(
        command, cwd=MODULES / module, env=_environment(), capture_output=True, text=True,
        timeout=_DOWNLOAD_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """The caller's, for where Go keeps its caches and fetches from, but with builds that depend on nothing else."""
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
