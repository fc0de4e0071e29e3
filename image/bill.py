"""The bill of materials: CycloneDX 1.6, a component for each Debian package and each wheel in the image.

Written here because the lock files already hold all that a generator would have to find out again, and because a
scanner of files would miss what was removed and guess at versions.
"""

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from image.debian import ARCHITECTURE, SUITE, Package
from image.wheels import Wheel

_DEBIAN_RELEASE = {"trixie": "debian-13"}[SUITE]
# CycloneDX calls a licence by its SPDX id or else by any name; here is what Debian and old metadata call the same thing.
_SPDX_IDS = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Zlib"}
_SPDX_ID_OF = {
    "Apache Software License": "Apache-2.0",
    "BSD-2-clause": "BSD-2-Clause",
    "BSD-3-clause": "BSD-3-Clause",
    "Expat": "MIT",
    "GPL-2": "GPL-2.0-only",
    "GPL-2+": "GPL-2.0-or-later",
    "GPL-3": "GPL-3.0-only",
    "GPL-3+": "GPL-3.0-or-later",
    "LGPL-2.1": "LGPL-2.1-only",
    "LGPL-2.1+": "LGPL-2.1-or-later",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
}


def write_bill(
    file: Path,
    *,
    root: Path,
    packages: Iterable[Package],
    wheels: Iterable[Wheel],
    version: str,
    digest: str,
    epoch: int,
) -> None:
    """Write the bill of the image with this digest; `root` is its unpacked files, whose copyright notices are read."""
    components = [
        *(_describe_package(package, root) for package in sorted(packages)),
        *(_describe_wheel(wheel) for wheel in sorted(wheels)),
    ]
    subject = {
        "type": "container",
        "bom-ref": f"stockade@{digest}",
        "name": "stockade",
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": subject,
        },
        "components": components,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": [part["bom-ref"] for part in components]}],
    }
    file.write_text(json.dumps(document, indent=1) + "\n")


def _describe_package(package: Package, root: Path) -> dict[str, Any]:
    version = quote(package.version, safe="")
    reference = f"pkg:deb/debian/{quote(package.name, safe='')}@{version}?arch={ARCHITECTURE}&distro={_DEBIAN_RELEASE}"
    return {
        "type": "operating-system" if package.name == "base-files" else "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
        "licenses": [{"license": _name_licence(name)} for name in _read_copyright(package, root)],
        "purl": reference,
    }


def _describe_wheel(wheel: Wheel) -> dict[str, Any]:
    reference = f"pkg:pypi/{wheel.name}@{quote(wheel.version, safe='')}"
    is_expression = bool(re.search(r" (AND|OR|WITH) ", wheel.licence))
    return {
        "type": "application" if wheel.name == "stockade" else "library",
        "bom-ref": reference,
        "name": wheel.name,
        "version": wheel.version,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": [{"expression": wheel.licence} if is_expression else {"license": _name_licence(wheel.licence)}],
        "purl": reference,
    }


def _read_copyright(package: Package, root: Path) -> list[str]:
    """The licences that the package's copyright file names, where a machine can read it; most of Debian's are so."""
    notice = root / "usr/share/doc" / package.name / "copyright"
    text = notice.read_text(errors="replace") if notice.is_file() else ""
    found = set(re.findall(r"^License: *(\S[^\n]*)$", text, re.MULTILINE)) if text.startswith("Format:") else set[str]()
    return sorted(found) or [f"see /usr/share/doc/{package.name}/copyright"]


def _name_licence(name: str) -> dict[str, str]:
    name = _SPDX_ID_OF.get(name, name)
    return {"id": name} if name in _SPDX_IDS or name in _SPDX_ID_OF.values() else {"name": name}
