"""The image's files on disk, in three stages that become its three layers.

Debian's part changes with the packages, the dependencies with requirements/runtime.txt, and our own part with every
release: what a node has of an earlier release it does not fetch again.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from image import debian, wheels
from image.debian import PYTHON, TRIPLET, Package
from image.wheels import Wheel

USER = 10_001
HOME = "opt/stockade"
ENTRYPOINT = f"/{HOME}/bin/stockade"
SITE_PACKAGES = f"{HOME}/lib/{PYTHON}/site-packages"

_LOADER = "usr/lib64/ld-linux-x86-64.so.2"
_COMPILE_TIMEOUT_S = 600
# -I: neither the environment nor the working directory changes what is imported.
_ENTRY_SCRIPT = f"""#!/{HOME}/bin/python3 -I
import sys

from stockade.cli import main

sys.exit(main())
"""


class RootError(Exception):
    """The files cannot be put together. One line that says why."""


@dataclass(frozen=True)
class Stage:
    """What one layer adds: paths below the root, sorted, without directories that an earlier layer has."""

    title: str
    paths: tuple[str, ...]


def assemble(root: Path, packages: Mapping[Package, Path], dependencies: Iterable[Wheel], own: Wheel) -> list[Stage]:
    """Fill the empty directory `root`; what each stage added to it."""
    _add_debian(root, packages)
    debian_part = _list(root)
    _add_dependencies(root, dependencies)
    with_dependencies = _list(root)
    _add_own(root, own)
    return [
        Stage("Debian's C library, Python and certificates", tuple(sorted(debian_part))),
        Stage("Python packages of requirements/runtime.txt", tuple(sorted(with_dependencies - debian_part))),
        Stage("Stockade", tuple(sorted(_list(root) - with_dependencies))),
    ]


def _add_debian(root: Path, packages: Mapping[Package, Path]) -> None:
    for package in sorted(packages):
        debian.unpack(package, packages[package], root)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    # Where a container runtime mounts something; /tmp is the one place that a service may write to.
    for name in ("dev", "etc/stockade", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    nobody = "nobody:x:65534:65534:nobody:/nonexistent:/nonexistent"
    (root / "etc/passwd").write_text(
        f"root:x:0:0:root:/nonexistent:/nonexistent\nstockade:x:{USER}:{USER}:Stockade:/tmp:/nonexistent\n{nobody}\n"
    )
    (root / "etc/group").write_text(f"root:x:0:\nstockade:x:{USER}:\nnogroup:x:65534:\n")
    _bundle_certificates(root)
    _compile(root, f"usr/lib/{PYTHON}")


def _bundle_certificates(root: Path) -> None:
    """One file of all authorities, where Debian's OpenSSL looks, as the package's own script would make it."""
    folder = root / "usr/share/ca-certificates"
    certificates = sorted(folder.rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    bundle.write_text("".join(path.read_text().rstrip("\n") + "\n" for path in certificates))
    for path in certificates:
        path.unlink()
    for directory in (folder / "mozilla", folder):
        directory.rmdir()
    link = root / "usr/lib/ssl/cert.pem"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/etc/ssl/certs/ca-certificates.crt")


def _add_dependencies(root: Path, dependencies: Iterable[Wheel]) -> None:
    """A virtual environment as Python's own venv module makes it, without pip."""
    for wheel in sorted(dependencies):
        wheels.unpack(wheel, root / SITE_PACKAGES)
    (root / HOME / "bin").mkdir()
    (root / HOME / "bin/python3").symlink_to(f"/usr/bin/{PYTHON}")
    (root / HOME / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    _compile(root, SITE_PACKAGES)


def _add_own(root: Path, own: Wheel) -> None:
    wheels.unpack(own, root / SITE_PACKAGES)
    script = root / ENTRYPOINT.lstrip("/")
    script.write_text(_ENTRY_SCRIPT)
    script.chmod(0o755)
    _compile(root, f"{SITE_PACKAGES}/stockade")


def _compile(root: Path, folder: str) -> None:
    """Bytecode for every module, by the image's own Python, which its own loader starts: no chroot, so no root needed.

    A read-only root cannot keep bytecode later, and compiling at every start costs seconds. It is marked as never to
    be checked against its source, whose date would otherwise be part of it.
    """
    environment = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": os.defpath}
    python = [root / _LOADER, "--library-path", root / "usr/lib" / TRIPLET, root / "usr/bin" / PYTHON, "-s", "-B"]
    options = ["-q", "-f", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/"]
    try:
        subprocess.run(
            [*python, "-m", "compileall", *options, root / folder],
            env=environment, check=True, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stdout + error.stderr).split()[:80])
        raise RootError(f"{folder} cannot be compiled by the image's Python: {said}") from error


def _list(root: Path) -> set[str]:
    found: set[str] = set()
    for directory, folders, files in os.walk(root):
        found |= {str((Path(directory) / name).relative_to(root)) for name in (*folders, *files)}
    return found
