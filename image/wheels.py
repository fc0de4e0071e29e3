"""Wheels: fetched by pip with checked hashes for the image's Python, and unpacked without running anything.

Unpacking is a matter of a few lines once scripts, headers and bytecode are left out, and then no installer writes
dates, paths of this machine or its own name into the result.
"""

import base64
import csv
import email.message
import email.parser
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from image.debian import PYTHON

_MACHINE = "x86_64"
_GLIBC_MINOR = 41  # Of the Debian release that image/debian.py names; every wheel for an older one runs as well.
_VERSION = PYTHON.removeprefix("python")
_PIP_TIMEOUT_S = 600
# Sources of extension modules that are there compiled, and type stubs: 9 MB that nothing opens.
_DROPPED = re.compile(r".*\.(pyx|pxd|pxi|c|h|pyi)|(.+/)?(tests?|_testbase)/.*")


class WheelError(Exception):
    """A wheel cannot be had or is not what it should be. One line that says which."""


@dataclass(frozen=True, order=True)
class Wheel:
    """A wheel's file with what its metadata says; the name is normalised as registries do."""

    name: str
    version: str
    sha256: str
    licence: str
    file: Path


def fetch(requirements: Path, cache: Path) -> list[Wheel]:
    """The wheels that `requirements` pins for the image's Python and machine, from the cache where it has them."""
    digest = hashlib.sha256(requirements.read_bytes() + f"{_VERSION} {_GLIBC_MINOR}".encode()).hexdigest()
    directory = cache / f"wheels-{digest[:16]}"
    if not directory.exists():
        new = directory.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        _run_pip("download", *_target(), "--require-hashes", "--requirement", str(requirements), "--dest", str(new))
        new.rename(directory)
    pinned = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", requirements.read_text()))
    wheels = sorted(_read(file) for file in directory.glob("*.whl"))
    if strangers := [wheel.file.name for wheel in wheels if wheel.sha256 not in pinned]:
        raise WheelError(f"{', '.join(strangers)} is not what {requirements.name} pins: remove {directory}")
    return wheels


def build(project: Path, directory: Path) -> Wheel:
    """Our own wheel, of the sources in `project`, by the build backend of this environment."""
    _run_pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(project))
    (file,) = directory.glob("*.whl")
    return _read(file)


def unpack(wheel: Wheel, site_packages: Path) -> None:
    """Put the wheel's modules under `site_packages`, with a RECORD of what is really there."""
    record: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(wheel.file) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            name = _place(info.filename)
            if info.is_dir() or name is None:
                continue
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise WheelError(f"{wheel.file.name} wants to write to {name}")
            content = archive.read(info)
            target = site_packages / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            # What an ordinary installer writes too, and what vulnerability scanners and importlib.metadata read.
            hashed = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append((name, f"sha256={hashed}", str(len(content))))
    (information,) = {name.split("/")[0] for name, _, _ in record if name.split("/")[0].endswith(".dist-info")}
    record.append((f"{information}/RECORD", "", ""))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(record)
    (site_packages / information / "RECORD").write_text(text.getvalue())


def _place(name: str) -> str | None:
    """Where a file of a wheel belongs below site-packages; None for what the image does without."""
    if match := re.fullmatch(r"[^/]+\.data/(purelib|platlib)/(.+)", name):
        name = match[2]
    elif re.match(r"[^/]+\.data/", name) or name.endswith((".dist-info/RECORD", ".dist-info/entry_points.txt")):
        return None
    return None if _DROPPED.fullmatch(name) else name


def _target() -> Iterator[str]:
    yield from ("--no-deps", "--only-binary", ":all:", "--implementation", "cp", "--python-version", _VERSION)
    for abi in (f"cp{_VERSION.replace('.', '')}", "abi3", "none"):
        yield from ("--abi", abi)
    for minor in range(_GLIBC_MINOR, 4, -1):
        yield from ("--platform", f"manylinux_2_{minor}_{_MACHINE}")
    for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux"):
        yield from ("--platform", f"{old}_{_MACHINE}")
    yield from ("--platform", "any")


def _run_pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    # The build backend is a program beside this Python, which need not be on the PATH.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=_PIP_TIMEOUT_S,
            env={**os.environ, "PATH": path},
        )
    except subprocess.CalledProcessError as error:
        raise WheelError(f"pip {arguments[0]} failed: {' '.join(error.stderr.split()[-80:])}") from error
    except subprocess.TimeoutExpired as error:
        raise WheelError(f"pip {arguments[0]} took longer than {_PIP_TIMEOUT_S} s") from error


def _read(file: Path) -> Wheel:
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = email.parser.BytesParser().parsebytes(archive.read(name))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Wheel(
        re.sub(r"[-_.]+", "-", str(metadata["Name"])).lower(),
        str(metadata["Version"]),
        sha256,
        _find_licence(metadata),
        file,
    )


def _find_licence(metadata: email.message.Message) -> str:
    """What the wheel says about its licence: the SPDX expression, else the classifiers, else the first line of prose."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    classifiers = [str(value) for value in metadata.get_all("Classifier", [])]
    if licences := [value.rpartition(" :: ")[2] for value in classifiers if value.startswith("License :: ")]:
        return ", ".join(licences)
    return (str(metadata["License"] or "").strip().splitlines() or ["not stated"])[0]
