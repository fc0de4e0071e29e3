"""Copies the database's archive to an object store that speaks S3, and back: `copy_archive.py send` or `fetch`.

It needs nothing but Python, so that the services' own image can run it. A base backup counts as there when its manifest
is, which is therefore sent last and makes an interrupted run harmless. Nothing is ever deleted, neither there nor here: a
lifecycle rule of the bucket does that, and whoever takes this cluster over holds a key that cannot destroy the backups.

Environment: POSTGRES_ARCHIVE, OBJECT_STORE_URL (with the bucket as its path), OBJECT_STORE_REGION, and OBJECT_STORE_KEYS,
a directory with `access-key-id` and `secret-access-key`.
"""

import hashlib
import hmac
import html
import http.client
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

CHUNK_BYTES = 1024 * 1024
ANSWER_BYTES_MAX = 16 * 1024 * 1024
PAGES_MAX = 1000
TIMEOUT_S = 60
MANIFEST = "backup_manifest"
EMPTY = hashlib.sha256(b"").hexdigest()


class StoreError(Exception):
    """The store refused a request, or cannot be reached."""


@dataclass(frozen=True)
class Store:
    """A bucket, addressed by path, whose requests are signed with AWS Signature Version 4."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str

    def list_sizes(self) -> dict[str, int]:
        """Every key of the bucket with its size in bytes."""
        found: dict[str, int] = {}
        query = {"list-type": "2"}
        for _ in range(PAGES_MAX):
            with self._request("GET", "", query=query) as answer:
                text = answer.read(ANSWER_BYTES_MAX).decode()
            for entry in re.findall(r"<Contents>(.*?)</Contents>", text, re.DOTALL):
                found[_field(entry, "Key")] = int(_field(entry, "Size"))
            if "<IsTruncated>true</IsTruncated>" not in text:
                return found
            query = {"list-type": "2", "continuation-token": _field(text, "NextContinuationToken")}
        raise StoreError(f"the bucket has more than {PAGES_MAX} pages: give this archive one of its own")

    def put(self, key: str, path: Path | None) -> None:
        """Store a file; a key without one, which ends in a slash, stands for an empty directory."""
        if path is None:
            self._request("PUT", key, size=0).close()
            return
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            content.seek(0)
            self._request("PUT", key, body=content, size=path.stat().st_size, digest=digest).close()

    def get(self, key: str, target: Path) -> None:
        """Fetch into a file, which appears under its name when it is whole and on the disk."""
        partial = target.with_name(f".{target.name}.partial")
        with self._request("GET", key) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file, CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    def _request(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        body: IO[bytes] | None = None,
        size: int | None = None,
        digest: str = EMPTY,
    ) -> http.client.HTTPResponse:
        parts = urlsplit(self.url)
        path = quote(f"{parts.path.rstrip('/')}/{key}", safe="/-_.~")
        arguments = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted((query or {}).items())
        )
        headers = {"host": parts.netloc, "x-amz-content-sha256": digest}
        headers = sign(self, method, path, arguments, headers, datetime.now(UTC))
        if size is not None:
            headers["content-length"] = str(size)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=TIMEOUT_S)
        try:
            connection.request(method, f"{path}?{arguments}" if arguments else path, body=body, headers=headers)
            answer = connection.getresponse()
        except OSError as error:
            raise StoreError(f"{parts.netloc} cannot be reached: {error}") from error
        if answer.status != http.HTTPStatus.OK:
            reason = answer.read(2000).decode(errors="replace")
            raise StoreError(f"{method} {path}: {answer.status} {reason}")
        return answer


def sign(
    store: Store, method: str, path: str, arguments: str, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers with date and authorization, after "Authenticating Requests: Using the Authorization Header" of Amazon S3.

    Every given header is signed; `headers` names the digest of the body as x-amz-content-sha256.
    """
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    signed = {**headers, "x-amz-date": moment}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
    request = "\n".join((method, path, arguments, lines, names, signed["x-amz-content-sha256"]))
    scope = f"{day}/{store.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{store.secret_access_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.digest(key, part.encode(), "sha256")
    credential = f"Credential={store.access_key_id}/{scope}"
    signed["authorization"] = f"AWS4-HMAC-SHA256 {credential},SignedHeaders={names},Signature={key.hex()}"
    return signed


def send(archive: Path, store: Store) -> int:
    """Send what the store has not, or has in another size; how many files that were."""
    there = store.list_sizes()
    count = 0
    for key, path in _list_archive(archive):
        try:
            if there.get(key) != (0 if path is None else path.stat().st_size):
                store.put(key, path)
                count += 1
        except FileNotFoundError:
            # The backup Job removed it meanwhile, because nothing needs it any more.
            continue
    return count


def fetch(archive: Path, store: Store) -> int:
    """Fetch what this archive has not, leaving out base backups that never arrived whole; how many files that were."""
    there = store.list_sizes()
    count = 0
    for key, size in sorted(there.items(), key=lambda item: (item[0].endswith(MANIFEST), item[0])):
        kind, _, rest = key.partition("/")
        if kind == "base" and f"base/{rest.partition('/')[0]}/{MANIFEST}" not in there:
            continue
        target = archive / key
        if archive.resolve() not in target.resolve().parents:
            raise StoreError(f"{key} would lie outside the archive")
        if key.endswith("/"):
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not target.exists() or target.stat().st_size != size:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            store.get(key, target)
            count += 1
    return count


def _list_archive(archive: Path) -> Iterator[tuple[str, Path | None]]:
    """What belongs into the store, in the order in which it must arrive: WAL, the files of a backup, its manifest."""
    for path in sorted((archive / "wal").glob("[!.]*.gz")):
        yield f"wal/{path.name}", path
    for backup in sorted((archive / "base").glob("[!.]*")):
        for path in sorted(backup.rglob("*"), key=lambda path: (path == backup / MANIFEST, path)):
            key = path.relative_to(archive).as_posix()
            if path.is_file():
                yield key, path
            elif path.is_dir() and not any(path.iterdir()):
                # PostgreSQL does not start without its empty directories.
                yield f"{key}/", None


def _field(text: str, name: str) -> str:
    match = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    if match is None:
        raise StoreError(f"the store's list has no {name}")
    return html.unescape(match[1])


def main() -> int:
    """Run the verb that the command line names."""
    os.umask(0o077)
    keys = Path(os.environ["OBJECT_STORE_KEYS"])
    store = Store(
        url=os.environ["OBJECT_STORE_URL"],
        region=os.environ["OBJECT_STORE_REGION"],
        access_key_id=(keys / "access-key-id").read_text().strip(),
        secret_access_key=(keys / "secret-access-key").read_text().strip(),
    )
    verb = {"send": send, "fetch": fetch}[sys.argv[1]]
    try:
        count = verb(Path(os.environ["POSTGRES_ARCHIVE"]), store)
    except StoreError as error:
        sys.stderr.write(f"copy_archive: {error}\n")
        return 1
    sys.stdout.write(f"copy_archive: {verb.__name__} moved {count} files\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
