"""Debian packages: which ones, in which version, fetched from the signed archive and unpacked without running anything.

Apt does the fetching, with directories of its own, so that it needs no root and neither reads nor changes what the
machine has installed. Only where its packages come from is asked of the machine: the mirror that it is set up with.
"""

import hashlib
import os
import platform
import re
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SUITE = "trixie"
ARCHITECTURE = "amd64"
TRIPLET = "x86_64-linux-gnu"
PYTHON = "python3.13"

# By hand instead of by dependency: those would bring debconf, perl, a shell and openssl, which only installation needs.
# That nothing is missing is shown by tests/image: every shared object finds its libraries.
PACKAGES = (
    "base-files",  # os-release, which tells scanners what this is, and the texts of the licences.
    "ca-certificates",
    "gcc-14-base",  # The copyright of the compiler's run-time libraries.
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "libssl3t64",
    "libstdc++6",  # Some wheels are written in C++.
    "libuuid1",
    "libzstd1",
    "python3.13-minimal",
    "tzdata",
    "zlib1g",
)

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_APT_TIMEOUT_S = 300

_LIBRARY = f"usr/lib/{PYTHON}"
_KEPT = re.compile(
    rf"usr/(bin/{PYTHON}|lib/os-release|lib64/.+|lib/{re.escape(TRIPLET)}/.+|lib/{PYTHON}/.+|share/zoneinfo/.+"
    r"|share/ca-certificates/.+\.crt|share/common-licenses/.+|share/doc/[^/]+/copyright)"
)
# What no service imports: other people's tests, programs for a desktop, and modules whose library is left out.
_DROPPED = re.compile(
    rf"usr/lib/{re.escape(TRIPLET)}/(gconv|audit|perl|perl-base)/.*"
    rf"|{re.escape(_LIBRARY)}/(test|idlelib|turtledemo|turtle\.py|tkinter|ensurepip|pydoc_data|venv|sqlite3|curses|dbm)(/.*)?"
    rf"|{re.escape(_LIBRARY)}/lib-dynload/(_test|_xxtestfuzz|xxlimited|_ctypes_test|readline|_curses|_dbm|_gdbm|_sqlite3|_tkinter).*"
    rf"|{re.escape(_LIBRARY)}/(unittest/test|ctypes/test|distutils/tests|__phello__)/.*"
)


class DebianError(Exception):
    """A package cannot be had. One line that says which, and what to do."""


@dataclass(frozen=True, order=True)
class Package:
    """One version of a package, and the SHA-256 of its file."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.sha256[:16]}.deb"


def read_lock(path: Path) -> dict[str, Package]:
    """The recorded packages by name. Raises DebianError when the record is not about exactly `PACKAGES`."""
    rows = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    locked = {name: Package(name, version, sha256) for name, version, sha256 in rows}
    if set(locked) != set(PACKAGES):
        raise DebianError(f"{path.name} records other packages than image/debian.py names: run make image-lock")
    return locked


def write_lock(path: Path, packages: Iterable[Package]) -> None:
    lines = [
        f"# The Debian packages of the image: {SUITE}, {ARCHITECTURE}. Name, version, SHA-256 of the file.",
        "# Written by `make image-lock`, not edited by hand; a newer version in the archive is reported by `make image`.",
        *(f"{package.name} {package.version} {package.sha256}" for package in sorted(packages)),
    ]
    path.write_text("\n".join(lines) + "\n")


class Archive:
    """Debian's archive as apt sees it, with its indexes and the packages already fetched in `directory`."""

    def __init__(self, directory: Path, *, mirror: str | None = None, index_age_max_s: int = 86_400) -> None:
        """`mirror` is the address of an archive that also has the security suite; None takes what the machine uses."""
        self._index_age_max_s = index_age_max_s
        self._directory = directory
        self._mirror = mirror
        self.packages = directory / "packages"

    def fetch(self, wanted: Mapping[str, Package]) -> tuple[dict[Package, Path], list[str]]:
        """The files of the packages, and a line for each package that is not, or will soon not be, as recorded.

        A recorded version that is no longer in the archive is replaced by the newest, because a mirror drops what a
        security update replaces; the line about it says so. Without a network, what was fetched before is enough.
        """
        missing = [package for package in wanted.values() if not self._has(package)]
        if self._refresh(needed=bool(missing)):
            newest = self.find_newest()
            available = set(self._show("--all-versions"))
            chosen = {
                name: package if self._has(package) or package in available else newest[name]
                for name, package in wanted.items()
            }
            notes = [_describe(wanted[name], newest[name], chosen[name]) for name in chosen]
        else:
            chosen, notes = dict(wanted), ["the archive cannot be reached: no look for newer versions"]
        self._download([package for package in chosen.values() if not self._has(package)])
        return {package: self.packages / package.file_name for package in chosen.values()}, [*filter(None, notes)]

    def find_newest(self) -> dict[str, Package]:
        """The version of each package that apt would install today."""
        self._refresh(needed=True)
        newest = {package.name: package for package in self._show("--no-all-versions")}
        if gone := sorted(set(PACKAGES) - set(newest)):
            raise DebianError(f"Debian {SUITE} has no package {', '.join(gone)}")
        return newest

    def _has(self, package: Package) -> bool:
        path = self.packages / package.file_name
        return path.is_file() and _sha256(path) == package.sha256

    def _refresh(self, *, needed: bool) -> bool:
        """Fetch the indexes unless they are fresh; False when that fails and they are not needed."""
        stamp = self._directory / "refreshed"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < self._index_age_max_s:
            return True
        try:
            self._configure()
            self._apt("apt-get", "update")
        except DebianError:
            if needed:
                raise
            return False
        stamp.touch()
        return True

    def _configure(self) -> None:
        for folder in ("lists/partial", "archives/partial", "etc/parts", "packages", "incoming"):
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
        (self._directory / "status").touch()
        if not _KEYRING.exists():
            raise DebianError(f"{_KEYRING} is missing: install the package debian-archive-keyring")
        main, security = (self._mirror, self._mirror) if self._mirror else _find_mirrors()
        signed = f"[signed-by={_KEYRING}]"
        (self._directory / "etc/sources.list").write_text(
            f"deb {signed} {main} {SUITE} main\ndeb {signed} {main} {SUITE}-updates main\n"
            f"deb {signed} {security} {SUITE}-security main\n"
        )
        # How the machine reaches any archive, such as by a proxy, holds for this one too.
        reach = subprocess.check_output(["apt-config", "dump", "Acquire"], text=True)
        (self._directory / "apt.conf").write_text(
            f'{reach}\nDir "/";\nDir::State "{self._directory}";\nDir::State::status "{self._directory}/status";\n'
            f'Dir::Cache "{self._directory}";\nDir::Etc "{self._directory}/etc";\nDir::Etc::sourceparts "-";\n'
            f'Dir::Etc::parts "{self._directory}/etc/parts";\n'
            f'APT::Architecture "{ARCHITECTURE}";\nAPT::Architectures {{ "{ARCHITECTURE}"; }};\n'
            'Acquire::Languages "none";\nAPT::Sandbox::User "root";\nAPT::Update::Error-Mode "any";\n'
        )

    def _show(self, *options: str) -> list[Package]:
        text = self._apt("apt-cache", "show", *options, *PACKAGES)
        return [_parse_record(record) for record in text.split("\n\n") if record.strip()]

    def _download(self, packages: list[Package]) -> None:
        if not packages:
            return
        self._apt("apt-get", "download", *(f"{package.name}={package.version}" for package in packages))
        for package in packages:
            found = next((self._directory / "incoming").glob(f"{package.name}_*.deb"), None)
            if found is None or _sha256(found) != package.sha256:
                raise DebianError(f"{package.name} {package.version} is not the file that is recorded: do not use it")
            found.rename(self.packages / package.file_name)

    def _apt(self, *command: str) -> str:
        environment = {**os.environ, "APT_CONFIG": str(self._directory / "apt.conf"), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command, env=environment, cwd=self._directory / "incoming", capture_output=True, text=True, check=True,
                timeout=_APT_TIMEOUT_S, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise DebianError(f"{command[0]} is missing: build on Debian, or use the Containerfile") from error
        except subprocess.CalledProcessError as error:
            said = " ".join(line for line in error.stderr.splitlines() if line.startswith("E:"))
            raise DebianError(f"{' '.join(command[:2])} failed: {said or error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise DebianError(f"{' '.join(command[:2])} took longer than {_APT_TIMEOUT_S} s") from error
        return done.stdout


def unpack(package: Package, file: Path, root: Path) -> None:
    """Put what running needs of a package under `root`, and its description where scanners look for it."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as process:
        assert process.stdout
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                _unpack_member(archive, member, root)
        process.stdout.read()
    if process.returncode:
        raise DebianError(f"dpkg-deb cannot read {file.name}")
    description = subprocess.check_output(["dpkg-deb", "--field", file], text=True)
    status = root / "var/lib/dpkg/status.d" / package.name
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text(description)


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    name = member.name.removeprefix("./").rstrip("/")
    # Packages of the time before Debian merged /lib into /usr/lib still say where their files used to be.
    name = re.sub(r"^(bin|lib|lib64|sbin)/", r"usr/\1/", name)
    of_documentation = member.issym() and re.fullmatch(r"usr/share/doc/[^/]+", name)
    if not (_KEPT.fullmatch(name) or of_documentation) or _DROPPED.fullmatch(name) or ".." in name.split("/"):
        return
    target = root / name
    if member.isdir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.isfile():
        source = archive.extractfile(member)
        assert source
        target.write_bytes(source.read())
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
    else:
        raise DebianError(f"{name} is neither a file nor a link: image/debian.py does not expect that")


def _find_mirrors() -> tuple[str, str]:
    """Where this machine's apt finds its own release and that one's security updates."""
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        raise DebianError("this machine is not Debian: name a mirror with --mirror, or use the Containerfile")
    codename = release.get("VERSION_CODENAME", SUITE)
    listing = subprocess.check_output(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"], text=True
    )
    mirrors = dict(line.split(" ", 1) for line in listing.splitlines())
    try:
        return mirrors[codename], mirrors[f"{codename}-security"]
    except KeyError as error:
        raise DebianError(f"apt knows no source for {error.args[0]}: name a mirror with --mirror") from error


def _parse_record(record: str) -> Package:
    fields = dict(_parse_fields(record))
    return Package(fields["Package"], fields["Version"], fields["SHA256"])


def _parse_fields(record: str) -> Iterator[tuple[str, str]]:
    for line in record.splitlines():
        name, colon, value = line.partition(": ")
        if colon and not line.startswith(" "):
            yield name, value


def _describe(recorded: Package, newest: Package, chosen: Package) -> str:
    if chosen != recorded:
        return f"{recorded.name} {recorded.version} is gone from the archive, {chosen.version} is taken: run make image-lock"
    if newest != recorded:
        return f"{recorded.name} {newest.version} is newer than the recorded {recorded.version}: run make image-lock"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
