"""Kernel settings that a kubelet changes for the whole machine: remembered before, put back after."""

import json
from pathlib import Path

_CHANGED = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")


def save_kernel_settings(target: Path) -> None:
    target.write_text(json.dumps({name: _path(name).read_text().strip() for name in _CHANGED}))


def restore_kernel_settings(saved: Path) -> None:
    """Put back what was saved. Does nothing where nothing was."""
    if saved.exists():
        for name, value in json.loads(saved.read_text()).items():
            if _path(name).read_text().strip() != value:
                _path(name).write_text(value)


def _path(name: str) -> Path:
    return Path("/proc/sys") / name
