"""What the lab asks of a machine, and how it gets what is missing."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

_GO_AT_LEAST = (1, 26)
_APT_TIMEOUT_S = 600


class MachineError(Exception):
    """The machine could not be made ready; the text says which step failed."""


@dataclass(frozen=True)
class Tool:
    """A program, and the Debian package that brings it."""

    program: str
    package: str


CONTROL_PLANE_TOOLS = (Tool("ip", "iproute2"), Tool("nsenter", "util-linux"))
REAL_NODE_TOOLS = (
    *CONTROL_PLANE_TOOLS,
    Tool("runc", "runc"),
    Tool("nft", "nftables"),
    Tool("conntrack", "conntrack"),
    Tool("catatonit", "catatonit"),
)


def find_obstacles(tools: tuple[Tool, ...] = CONTROL_PLANE_TOOLS) -> list[str]:
    """Reasons why the lab cannot run here, none if it can. Only reads."""
    if platform.system() != "Linux":
        return [f"it needs Linux, not {platform.system()}"]
    obstacles: list[str] = []
    if os.geteuid() != 0:
        obstacles.append("it needs root, for a network namespace of its own")
    obstacles += _find_obstacles_of_go()
    missing = [tool.program for tool in find_missing(tools)]
    if missing and shutil.which("apt-get") is None:
        obstacles.append(f"it needs {', '.join(missing)}, and there is no apt to install it with")
    return obstacles


def find_missing(tools: tuple[Tool, ...]) -> list[Tool]:
    return [tool for tool in tools if shutil.which(tool.program) is None]


def install_missing(tools: tuple[Tool, ...], say: Callable[[str], None]) -> None:
    """Install the packages of missing tools with apt. Does nothing when none is missing."""
    packages = sorted({tool.package for tool in find_missing(tools)})
    if not packages:
        return
    say(f"installing {', '.join(packages)} with apt")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *arguments], capture_output=True, text=True, env=quiet, timeout=_APT_TIMEOUT_S, check=False
        )
        if done.returncode:
            last = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise MachineError(f"apt-get {arguments[0]} failed: {last}")


def _find_obstacles_of_go() -> list[str]:
    needed = ".".join(map(str, _GO_AT_LEAST))
    if shutil.which("go") is None:
        return [f"it needs Go {needed} or newer, to build Kubernetes"]
    version = subprocess.check_output(["go", "env", "GOVERSION"], text=True, timeout=30).strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _GO_AT_LEAST:
        return [f"it needs Go {needed} or newer, and found {version}"]
    return []
