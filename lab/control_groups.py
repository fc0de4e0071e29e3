"""Control groups of the real nodes, in whichever version of them this machine has."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_HIERARCHIES = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb")


def make_control_groups(name: str) -> None:
    """Make a group in every hierarchy that this machine has."""
    present = [_ROOT / h for h in _HIERARCHIES if (_ROOT / h).is_dir()] or [_ROOT]
    for hierarchy in present:
        (hierarchy / name).mkdir(exist_ok=True)
    # In the first version of control groups these are empty in a new group, and nothing can run there until they are not.
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (_ROOT / "cpuset" / name).is_dir():
            (_ROOT / "cpuset" / name / file).write_text((_ROOT / "cpuset" / file).read_text())


def remove_control_groups(name: str) -> None:
    """Remove a group and those inside it, from every hierarchy. One that still has processes stays, and is a trace."""
    for group in [*_ROOT.glob(f"*/{name}"), *_ROOT.glob(name)]:
        for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            _remove_group(inner)
        _remove_group(group)


def _remove_group(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return  # Busy, or not a group: find_traces sees what is left.
