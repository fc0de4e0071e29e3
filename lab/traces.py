"""What a cluster could leave on the machine, looked for after its end instead of believed."""

from pathlib import Path

from lab.network import NAMESPACE
from lab.places import CACHE, STATE


def find_traces() -> list[str]:
    """Everything of a cluster that is still there. Only reads."""
    return [
        *_find_processes(), *_find_namespaces(), *_find_mounts(), *_find_groups(), *_find_network_records(), *_find_state()
    ]  # fmt: skip


def _find_processes() -> list[str]:
    """Processes that run a program of the lab, whoever started it."""
    found: list[str] = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            program = (directory / "exe").readlink()
        except OSError:
            continue  # It has ended meanwhile, or is the kernel's own.
        if program.is_relative_to(CACHE):
            found.append(f"process {directory.name} ({program.name})")
    return found


def _find_namespaces() -> list[str]:
    names = [f"network namespace {path.name}" for path in Path("/run/netns").glob(f"{NAMESPACE}*")]
    return names + [f"network device {path.name}" for path in Path("/sys/class/net").glob(f"{NAMESPACE}*")]


def _find_mounts() -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [f"mount {point}" for point in points if Path(point).is_relative_to(CACHE)]


def _find_groups() -> list[str]:
    """Control groups, in whichever hierarchy: the lab names all of its own alike."""
    root = Path("/sys/fs/cgroup")
    return [f"control group {path}" for depth in ("", "*/") for path in root.glob(f"{depth}{NAMESPACE}*")]


def _find_network_records() -> list[str]:
    """What the network plugins noted about containers of the lab's pod network, which is named like its namespace."""
    return [f"file {path}" for path in Path("/var/lib/cni/results").glob(f"{NAMESPACE}-*")]


def _find_state() -> list[str]:
    return [f"directory {STATE}"] if STATE.exists() else []
