"""Containers without an engine: Debian's runc on the unpacked image, as strict as a pod of the `restricted` profile."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.image.archives import Image

USER = 10_001
WRITABLE = "/tmp"  # noqa: S108
MEMORY_LIMIT_BYTES = 256 * 1024 * 1024
STOP_LIMIT_S = 30
_RUN_LIMIT_S = 60

# What containerd's own profile refuses to an ordinary process, as far as it matters here.
_REFUSED_CALLS = [
    "acct", "add_key", "bpf", "clock_settime", "create_module", "delete_module", "finit_module", "init_module",
    "kexec_load", "keyctl", "mount", "move_mount", "open_tree", "perf_event_open", "pivot_root",
    "process_vm_readv", "process_vm_writev", "ptrace", "reboot", "request_key", "setns", "settimeofday",
    "swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd",
]  # fmt: skip


def find_runc(directory: Path) -> str:
    """The path of runc: this machine's, else Debian's, unpacked into `directory` and not installed. Skips without."""
    if os.geteuid() != 0:
        pytest.skip("a container needs root here: the image is not run by this user")
    if found := shutil.which("runc"):
        return found
    if not shutil.which("apt-get"):
        pytest.skip("there is no runc and no apt-get to fetch it: the image is not run on this machine")
    directory.mkdir(exist_ok=True)
    for command in (["apt-get", "download", "runc"], ["apt-get", "update"], ["apt-get", "download", "runc"]):
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        if package := next(directory.glob("runc_*.deb"), None):
            break
    else:
        pytest.skip(f"there is no runc and apt cannot fetch it: {' '.join(done.stderr.split()[-30:])}")
    subprocess.run(["dpkg-deb", "--extract", package, directory], check=True)
    runc = str(directory / "usr/sbin/runc")
    if subprocess.run([runc, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("Debian's runc does not start on this machine: it lacks libseccomp2")
    return runc


@dataclass
class Container:
    """A container under way."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    _runc: Sequence[str]

    @property
    def process_id(self) -> int:
        """The id of the container's first process on this machine."""
        return json.loads(subprocess.check_output([*self._runc, "state", self.name]))["pid"]

    def stop(self) -> int:
        """Stop it as the kubelet does; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_LIMIT_S)
        finally:
            if self.process.poll() is None:
                subprocess.run([*self._runc, "kill", self.name, "KILL"], check=False)
                self.process.wait(STOP_LIMIT_S)


@dataclass(frozen=True)
class Runtime:
    """Starts containers of one image. `folder` holds their bundles, logs and state."""

    runc: str
    image: Image
    root: Path
    folder: Path

    def start(
        self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str], secrets: Path | None = None,
        entrypoint: Sequence[str] = (),
    ) -> Container:  # fmt: skip
        """Start the image with these arguments, on this machine's network; `secrets` appears as /etc/stockade."""
        bundle = self.folder / name
        bundle.mkdir()
        command = [*(entrypoint or self.image.configuration["config"]["Entrypoint"]), *arguments]
        specification = self._specify(name, command, environment, secrets)
        (bundle / "config.json").write_text(json.dumps(specification))
        log = bundle / "log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [*self._command, "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        return Container(name, process, log, self._command)

    def run(
        self, name: str, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None,
        secrets: Path | None = None, entrypoint: Sequence[str] = (),
    ) -> tuple[int, str]:  # fmt: skip
        """Run a container that ends by itself: its exit code and output."""
        container = self.start(name, arguments, environment=environment or {}, secrets=secrets, entrypoint=entrypoint)
        try:
            return container.process.wait(_RUN_LIMIT_S), container.log.read_text()
        finally:
            if container.process.poll() is None:
                container.stop()

    @property
    def _command(self) -> list[str]:
        return [self.runc, "--root", str(self.folder / "state")]

    def _specify(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], secrets: Path | None
    ) -> dict[str, Any]:
        variables = self.image.environment | dict(environment)
        mounts = [_mount("/proc", "proc", []), _mount("/dev", "tmpfs", ["nosuid", "mode=755", "size=64k"])]
        mounts.append(_mount(WRITABLE, "tmpfs", ["nosuid", "nodev", "noexec", "mode=1777", "size=16m"]))
        if secrets:
            mounts.append(_bind(secrets, "/etc/stockade"))
        mounts += [_bind(Path("/etc") / file, f"/etc/{file}") for file in ("hosts", "resolv.conf")]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": USER, "gid": USER},
                "args": list(command),
                "env": [f"{key}={value}" for key, value in variables.items()],
                "cwd": self.image.configuration["config"]["WorkingDir"],
                "noNewPrivileges": True,
                "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            },
            "root": {"path": str(self.root), "readonly": True},
            "hostname": name,
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "cgroupsPath": f"/stockade-{self.folder.name}-{name}",
                "resources": {"memory": {"limit": MEMORY_LIMIT_BYTES}, "devices": [{"allow": False, "access": "rwm"}]},
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": _REFUSED_CALLS, "action": "SCMP_ACT_ERRNO"}],
                },
            },
        }


def _mount(target: str, kind: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options}


def _bind(source: Path, target: str) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
