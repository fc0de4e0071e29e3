"""The copy of the database's archive in an object store: signed as the standard says, complete, and never less than before.

The store is a real one, `versitygw` (`go install github.com/versity/versitygw/cmd/versitygw@v1.8.0`), which verifies every
signature; where it is not installed, those tests are skipped, and the signatures are compared with published examples only.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "k8s" / "components" / "archive-copy" / "copy_archive.py"
BACKUP = "base/20261124T021700Z"
# The key and the bucket of Amazon's published examples.
EXAMPLE_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
EXAMPLE_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("copy_archive", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


copying = _load()


@pytest.mark.parametrize(
    ("path", "arguments", "extra", "signature"),
    [
        ("/test.txt", "", {"range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/", "max-keys=2&prefix=J", {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_it_signs_as_the_published_examples_do(
    path: str, arguments: str, extra: dict[str, str], signature: str
) -> None:
    store = copying.Store("https://examplebucket.s3.amazonaws.com", "us-east-1", EXAMPLE_KEY_ID, EXAMPLE_KEY)
    headers = {"host": "examplebucket.s3.amazonaws.com", "x-amz-content-sha256": copying.EMPTY, **extra}
    signed = copying.sign(store, "GET", path, arguments, headers, datetime(2013, 5, 24, tzinfo=UTC))
    assert signed["authorization"].endswith(f"Signature={signature}")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    """An empty bucket."""
    program = shutil.which("versitygw", path=f"{os.environ['PATH']}:{Path.home() / 'go' / 'bin'}")
    if program is None:
        pytest.skip("versitygw is not installed")
    (tmp_path / "store" / "archive").mkdir(parents=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": EXAMPLE_KEY_ID, "ROOT_SECRET_KEY": EXAMPLE_KEY}
    server = subprocess.Popen(
        [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", tmp_path / "store"],
        env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port)
        yield copying.Store(f"http://127.0.0.1:{port}/archive", "us-east-1", EXAMPLE_KEY_ID, EXAMPLE_KEY)
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What the backup Job and the server leave, in small."""
    root = tmp_path / "archive"
    for name, content in {
        "wal/000000010000000000000001.gz": b"one",
        "wal/000000010000000000000002.gz": b"two",
        "wal/.000000010000000000000003.partial": b"on its way",
        f"{BACKUP}/base/1/pg_filenode.map": os.urandom(3_000_000),
        f"{BACKUP}/base/1/empty": b"",
        f"{BACKUP}/backup_manifest": b"{}",
        "base/.partial/PG_VERSION": b"18",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / BACKUP / "pg_notify").mkdir()
    return root


def test_what_was_sent_comes_back_with_empty_directories_and_without_what_was_on_its_way(
    store: Any, archive: Path, tmp_path: Path
) -> None:
    assert copying.send(archive, store) == 6
    assert copying.send(archive, store) == 0
    fetched = tmp_path / "fetched"
    assert copying.fetch(fetched, store) == 5

    shutil.rmtree(archive / "base" / ".partial")
    (archive / "wal" / ".000000010000000000000003.partial").unlink()
    assert _tree(fetched) == _tree(archive)


def test_an_archive_that_was_lost_takes_nothing_from_the_store(store: Any, archive: Path, tmp_path: Path) -> None:
    copying.send(archive, store)
    before = store.list_sizes()
    shutil.rmtree(archive)
    copying.send(archive, store)
    assert store.list_sizes() == before


def test_a_backup_whose_manifest_is_missing_is_not_fetched(store: Any, archive: Path, tmp_path: Path) -> None:
    (archive / BACKUP / "backup_manifest").unlink()
    copying.send(archive, store)
    copying.fetch(tmp_path / "fetched", store)
    assert not (tmp_path / "fetched" / "base").exists()
    assert (tmp_path / "fetched" / "wal" / "000000010000000000000002.gz").read_bytes() == b"two"


def test_a_list_of_more_than_one_page_is_read_to_its_end(store: Any, archive: Path) -> None:
    for number in range(1_050):
        (archive / "wal" / f"{number:024}.gz").write_bytes(b"x")
    copying.send(archive, store)
    assert len([key for key in store.list_sizes() if key.startswith("wal/")]) == 1_052


def test_a_wrong_key_is_one_clear_line(store: Any, archive: Path) -> None:
    with pytest.raises(copying.StoreError, match="403"):
        copying.send(archive, replace(store, secret_access_key="another"))


def test_a_store_that_is_away_is_one_clear_line(archive: Path) -> None:
    away = copying.Store("http://127.0.0.1:9/archive", "us-east-1", EXAMPLE_KEY_ID, EXAMPLE_KEY)
    with pytest.raises(copying.StoreError, match="cannot be reached"):
        copying.send(archive, away)


def _tree(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the store does not answer"
            time.sleep(0.05)
