"""The image is built from what is recorded, comes out the same every time, and says when it is not."""

import hashlib
import shutil
from pathlib import Path

import pytest

from image.debian import Archive, DebianError, Package, read_lock, write_lock
from image.layers import write_layer
from image.layout import write_archive
from image.rootfs import Stage
from image.wheels import WheelError, fetch
from tests.image.archives import Image, hash_tree, read_image
from tests.image.conftest import needs_a_builder, run_image, try_image
from tests.image.containerfile import PROJECT, configuration_of, copied_sources, read_containerfile

# Whoever comes first builds the image, with everything to be fetched on a new machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOCK = PROJECT / "image/packages.lock"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Debian's archive with an empty cache."""
    needs_a_builder()
    return Archive(tmp_path_factory.mktemp("debian"))


def test_the_same_inputs_give_the_same_digest(image: Image, context: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another place"
    shutil.copytree(context, elsewhere)
    (tmp_path / "work").mkdir()
    environment = {"TMPDIR": str(tmp_path / "work"), "PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    run_image(elsewhere, "build", "--output", str(tmp_path / "out"), environment=environment, umask=0o077)

    again = read_image(tmp_path / "out")

    assert again.digest == image.digest
    assert again.bill == image.bill
    assert again.archive.read_bytes() == image.archive.read_bytes()


def test_the_containerfile_gets_the_same_files(root: Path, context: Path, tmp_path: Path) -> None:
    _, build, _ = read_containerfile()
    assert build[-1].argument == "make install && .venv/bin/python -m image unpack /image"

    run_image(context, "unpack", str(tmp_path / "image"))

    assert hash_tree(tmp_path / "image") == hash_tree(root)


def test_the_containerfile_configures_the_same_image(image: Image) -> None:
    _, build, final = read_containerfile()

    assert configuration_of(final) == image.configuration["config"]
    assert [line.name for line in build if line.name in {"FROM", "RUN"}] == ["FROM", "RUN", "RUN"]
    assert [line.argument for line in final if line.name in {"FROM", "COPY"}] == ["scratch", "--from=build /image/ /"]


def test_the_ignore_file_lets_through_what_the_containerfile_copies() -> None:
    rules = (PROJECT / ".containerignore").read_text().splitlines()

    assert rules[1] == "*"
    assert sorted(rule.removeprefix("!") for rule in rules if rule.startswith("!")) == sorted(copied_sources())


def test_a_label_names_the_commit_of_a_release(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    layer = write_layer(tmp_path, Stage("one file", ("file",)), tmp_path / "layer", epoch=0)
    digests = [
        write_archive(tmp_path / name, [layer], version="1.2.3", revision=revision, epoch=0)
        for name, revision in (("a", None), ("b", None), ("release.oci.tar", "1234abcd"))
    ]
    (tmp_path / "release.digest").write_text(digests[-1])
    (tmp_path / "release.cdx.json").write_text("{}")

    release = read_image(tmp_path)

    assert release.configuration["config"]["Labels"]["org.opencontainers.image.revision"] == "1234abcd"
    assert digests[0] == digests[1] != digests[2]


def test_the_record_survives_being_written_again(tmp_path: Path) -> None:
    locked = read_lock(LOCK)

    write_lock(tmp_path / "packages.lock", locked.values())

    assert (tmp_path / "packages.lock").read_text() == LOCK.read_text()


def test_it_refuses_a_record_of_other_packages(tmp_path: Path) -> None:
    lines = LOCK.read_text().splitlines()
    (tmp_path / "packages.lock").write_text("\n".join(lines[:-1]))

    with pytest.raises(DebianError, match="make image-lock"):
        read_lock(tmp_path / "packages.lock")


def test_it_reports_a_newer_version_and_takes_the_recorded_one(archive: Archive) -> None:
    """What was fetched once is enough, even when the archive has moved on."""
    newest = archive.find_newest()["tzdata"]
    old = Package("tzdata", "1970a-1", hashlib.sha256(b"an old package").hexdigest())
    (archive.packages / old.file_name).write_bytes(b"an old package")

    files, notes = archive.fetch({"tzdata": old})

    assert list(files) == [old]
    assert notes == [f"tzdata {newest.version} is newer than the recorded 1970a-1: run make image-lock"]


def test_it_replaces_a_version_that_is_gone_from_the_archive_and_says_so(archive: Archive) -> None:
    newest = archive.find_newest()["tzdata"]

    files, notes = archive.fetch({"tzdata": Package("tzdata", "1970a-1", "0" * 64)})

    assert list(files) == [newest]
    assert notes == [f"tzdata 1970a-1 is gone from the archive, {newest.version} is taken: run make image-lock"]


def test_a_damaged_package_in_the_cache_is_fetched_again(archive: Archive) -> None:
    newest = archive.find_newest()["libuuid1"]
    files, _ = archive.fetch({newest.name: newest})
    files[newest].write_bytes(b"damaged")

    files, _ = archive.fetch({newest.name: newest})

    assert hashlib.sha256(files[newest].read_bytes()).hexdigest() == newest.sha256


def test_an_archive_that_cannot_be_reached_is_one_clear_line(context: Path, tmp_path: Path) -> None:
    arguments = ["build", "--mirror", "http://127.0.0.1:9/debian", "--output", str(tmp_path / "out")]

    code, _, errors = try_image(context, *arguments, environment={"XDG_CACHE_HOME": str(tmp_path / "cache")})

    assert code == 1
    assert errors.startswith("image: apt-get update failed: E: Failed to fetch http://127.0.0.1:9/debian")
    assert errors.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_it_refuses_a_wheel_that_is_not_the_pinned_one(tmp_path: Path) -> None:
    needs_a_builder()
    requirements = tmp_path / "requirements.txt"
    (pin,) = (line for line in _read_pins() if line.startswith("annotated-doc=="))
    requirements.write_text(f"{pin} --hash=sha256:{'0' * 64}\n")

    with pytest.raises(WheelError, match=r"(?i)hash"):
        fetch(requirements, tmp_path)


def test_it_refuses_a_wheel_that_was_changed_in_the_cache(tmp_path: Path) -> None:
    needs_a_builder()
    text = (PROJECT / "requirements/runtime.txt").read_text()
    start = text.index("annotated-doc==")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(text[start : text.index("annotated-types==")])
    (wheel,) = fetch(requirements, tmp_path)
    with wheel.file.open("ab") as file:
        file.write(b"more")

    with pytest.raises(WheelError, match="annotated_doc"):
        fetch(requirements, tmp_path)


def _read_pins() -> list[str]:
    lines = (PROJECT / "requirements/runtime.txt").read_text().splitlines()
    return [line.removesuffix(" \\") for line in lines if "==" in line]
