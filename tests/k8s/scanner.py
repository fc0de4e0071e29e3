"""checkov in an environment of its own, made once from hashes and kept in the cache of the user."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from k8s.tools.rendering import Manifest, read_yaml

REQUIREMENTS = Path(__file__).with_name("checkov.txt")
EXCEPTIONS = Path(__file__).with_name("checkov.yaml")

_INSTALL_TIMEOUT_S = 600
_SCAN_TIMEOUT_S = 300


class ScannerError(Exception):
    """The scanner cannot be had, or did not do its work. One line that says why."""


@dataclass(frozen=True, order=True)
class Objection:
    check: str
    resource: str
    """Kind.namespace.name."""
    tree: str
    says: str


@dataclass(frozen=True)
class Exemption:
    check: str
    says: str
    resources: list[str]
    reason: str

    def covers(self, objection: Objection) -> bool:
        return self.check == objection.check and any(fnmatchcase(objection.resource, it) for it in self.resources)


def read_exceptions(path: Path = EXCEPTIONS) -> list[Exemption]:
    (document,) = read_yaml(path.read_text())
    return [Exemption(**entry) for entry in document["exceptions"]]


def find_scanner() -> Path:
    """The Python of an environment that has checkov. Makes it when it is not there; raises ScannerError when it cannot."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stockade"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()
    home = cache / f"checkov-{digest[:16]}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Made aside and renamed, so that an interrupted installation is never taken for a whole one.
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            _install(Path(aside) / "environment")
            (Path(aside) / "environment").rename(home)
    return home / "bin" / "python"


def scan(python: Path, trees: Mapping[str, Iterable[Manifest]], folder: Path) -> list[Objection]:
    """What checkov objects to in each tree. Raises ScannerError when it did not read all of them."""
    command = [
        str(python),
        "-m",
        "checkov.main",
        "--framework",
        "kubernetes",
        "--skip-download",
        "--quiet",
        "--compact",
    ]
    names: dict[str, str] = {}
    for number, (tree, manifests) in enumerate(trees.items()):
        path = folder / f"tree-{number}.yaml"
        path.write_text(yaml.safe_dump_all(manifests))
        names[path.name] = tree
        command += ["--file", path.name]
    done = subprocess.run(
        [*command, "--output", "json"],
        cwd=folder, capture_output=True, text=True, timeout=_SCAN_TIMEOUT_S, check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LOG_LEVEL": "ERROR"},
    )  # fmt: skip
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise ScannerError(f"checkov ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    if report["summary"]["parsing_errors"] or report["summary"]["resource_count"] < len(names):
        raise ScannerError(f"checkov did not read everything: {report['summary']}")
    return sorted(
        Objection(it["check_id"], it["resource"], names[Path(it["file_path"]).name], it["check_name"])
        for it in report["results"]["failed_checks"]
    )


def _install(home: Path) -> None:
    venv.create(home, with_pip=False)
    command = [
        sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-input",
        "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:", "--requirement", str(REQUIREMENTS),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        shutil.rmtree(home, ignore_errors=True)
        raise ScannerError((done.stderr.strip().splitlines() or ["pip said nothing"])[-1])
