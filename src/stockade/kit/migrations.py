"""Numbered SQL migrations: each file once, in order, under an advisory lock, with the checksum of what was applied.

A service's schema has two series: the kit's tables and the service's own. Files are `NNNN_words.sql`; `:service_role`
in them stands for the login role of the service. An applied file must not change, and a database that knows a later
migration than this code refuses it: an old process never runs on a schema that it does not understand.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from stockade.kit.database import Connection
from stockade.kit.errors import ConfigurationError

_LOCK_WAIT_S = 120.0
_LOCK_POLL_S = 0.1
_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


@dataclass(frozen=True)
class Migration:
    series: str
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations(package: str) -> list[Migration]:
    """The kit's migrations and then those of the service whose Python package is named, such as `stockade.inventory`."""
    return [*_load("kit", "stockade.kit"), *_load("service", package)]


async def apply_migrations(connection: Any, migrations: Sequence[Migration], *, service_role: str) -> list[str]:
    """Apply what is missing, as the owner of the schema that the connection's search path names; return the names applied."""
    await _lock(connection)
    try:
        await connection.execute(
            """
            CREATE TABLE IF NOT EXISTS applied_migrations (
                series text NOT NULL,
                number integer NOT NULL,
                name text NOT NULL,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now(),
                PRIMARY KEY (series, number)
            )
            """
        )
        missing = find_missing(migrations, await _read_applied(connection))
        for migration in missing:
            await _apply(connection, migration, service_role)
        return [migration.name for migration in missing]
    finally:
        await connection.execute("SELECT pg_advisory_unlock(hashtext('stockade.migrations.' || current_schema()))")


async def count_missing(connection: Connection, migrations: Sequence[Migration]) -> int:
    """How many migrations are not applied yet; what the ready probe asks. Raises as `find_missing`."""
    if not await connection.fetchval("SELECT to_regclass('applied_migrations') IS NOT NULL"):
        return len(migrations)
    return len(find_missing(migrations, await _read_applied(connection)))


def find_missing(migrations: Sequence[Migration], applied: Iterable[tuple[str, int, str]]) -> list[Migration]:
    """What is still to apply. Refuses a database that is newer than the code, and a file that changed after it was applied."""
    known = {(migration.series, migration.number): migration for migration in migrations}
    done = {(series, number): checksum for series, number, checksum in applied}
    for key, checksum in done.items():
        if key not in known:
            raise ConfigurationError(
                f"The database is newer than this program: it has {key[0]} migration {key[1]:04d}. Install the newer version."
            )
        if known[key].checksum != checksum:
            raise ConfigurationError(
                f"Migration {known[key].name} was changed after it was applied; restore the file and add a new one."
            )
    return [migration for key, migration in known.items() if key not in done]


async def _lock(connection: Any) -> None:
    # Asked for again and again, because a wait in the server would end after the lock time-out of ordinary statements.
    for _ in range(int(_LOCK_WAIT_S / _LOCK_POLL_S)):
        if await connection.fetchval(
            "SELECT pg_try_advisory_lock(hashtext('stockade.migrations.' || current_schema()))"
        ):
            return
        await asyncio.sleep(_LOCK_POLL_S)
    raise ConfigurationError(
        f"Another process has been migrating for {_LOCK_WAIT_S:.0f} s; wait for it and start again."
    )


async def _read_applied(connection: Any) -> list[tuple[str, int, str]]:
    return [
        tuple(row)
        for row in await connection.fetch(
            "SELECT series, number, checksum FROM applied_migrations ORDER BY series, number"
        )
    ]


async def _apply(connection: Any, migration: Migration, service_role: str) -> None:
    async with connection.transaction():
        # A migration that waits for a lock blocks everyone behind it, so it gives up soon and can be run again.
        await connection.execute("SET LOCAL lock_timeout = '4s'")
        await connection.execute("SET LOCAL statement_timeout = '60s'")
        quoted = await connection.fetchval("SELECT quote_ident($1)", service_role)
        await connection.execute(f"GRANT SELECT ON applied_migrations TO {quoted}")
        await connection.execute(migration.sql.replace(":service_role", quoted), timeout=90)
        await connection.execute(
            "INSERT INTO applied_migrations (series, number, name, checksum) VALUES ($1, $2, $3, $4)",
            migration.series, migration.number, migration.name, migration.checksum,
        )  # fmt: skip


def _load(series: str, package: str) -> list[Migration]:
    directory = files(package).joinpath("migrations")
    found = sorted((match.group(1), entry) for entry in directory.iterdir() if (match := _NAME.match(entry.name)))
    numbers = [int(number) for number, _ in found]
    assert numbers == list(range(1, len(found) + 1)), f"migrations of {package} have gaps: {numbers}"
    return [
        Migration(series, int(number), entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
        for number, entry in found
    ]
