"""Database, schemas and roles of the services, on our own server or on anybody's.

One schema and one login role per service. The schemas belong to `stockade_owner`, as whom migrations run; a service's
role may only look into its own schema, and what it may do with a table is granted by the migration that makes it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import asyncpg

from stockade.postgres.binaries import VERSION_MIN
from stockade.postgres.errors import PostgresError
from stockade.postgres.scram import scram_verifier

OWNER_ROLE = "stockade_owner"

_IDENTIFIER_BYTES_MAX = 63
_CONNECT_TIMEOUT_S = 10
_STATEMENT_TIMEOUT_S = 60
_LOCK_WAIT_S = 50
_LOCK_KEY = 0x5707_CADE


def role_of(schema: str) -> str:
    """The login role of the service that owns `schema`."""
    return f"stockade_{schema}"


def quote_identifier(name: str) -> str:
    """`name` as SQL writes it; `user` and `order` are names here, and reserved words there.

    Raises ValueError for what PostgreSQL would refuse or, worse, cut off silently.
    """
    if not name or "\0" in name or len(name.encode()) > _IDENTIFIER_BYTES_MAX:
        raise ValueError(f"{name!r} cannot be the name of a role, schema or database")
    return '"' + name.replace('"', '""') + '"'


async def bootstrap(admin_url: str, *, database: str, schemas: Sequence[str], passwords: Mapping[str, str]) -> None:
    """Bring roles, `database` and `schemas` into the state that the services need; whatever is so already, stays.

    `passwords` has one for OWNER_ROLE and for `role_of` each schema; they are set anew each time, which is how they
    are rotated. The role of `admin_url` is a superuser, or has CREATEROLE and CREATEDB. Runs at the same time wait
    for each other. Raises PostgresError: the server is unreachable, older than 16 or refuses the password; the role
    lacks a right; something of ours exists and belongs to somebody else.
    """
    roles = [OWNER_ROLE, *(role_of(schema) for schema in schemas)]
    verifiers = _verifiers_of(roles, passwords)
    async with _connected(admin_url, None) as server:
        await _check_version(server, admin_url)
        await server.execute(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
        # Roles belong to the whole server, hence one lock for all of it, held until the session ends.
        try:
            await server.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        except asyncpg.LockNotAvailableError:
            raise PostgresError(
                f"Another bootstrap has held {_place_of(admin_url, None)} for {_LOCK_WAIT_S} s: let it end, or end it."
            ) from None
        async with server.transaction():
            for role in roles:
                await _ensure_role(server, role, verifiers[role])
            await _join_owner(server)
        await _ensure_database(server, database)
        async with _connected(admin_url, database) as inside, inside.transaction():
            await _close_database(inside, database, roles)
            for schema in schemas:
                await _ensure_schema(inside, schema, roles)
                await _point_role(inside, database, schema)


def _verifiers_of(roles: Sequence[str], passwords: Mapping[str, str]) -> dict[str, str]:
    verifiers: dict[str, str] = {}
    for role in roles:
        try:
            verifiers[role] = scram_verifier(passwords[role])
        except KeyError:
            raise PostgresError(f"The role {role} needs a password and none was given.") from None
        except ValueError as error:
            raise PostgresError(f"The password of the role {role} cannot be used: {error}.") from None
    return verifiers


@asynccontextmanager
async def _connected(admin_url: str, database: str | None) -> AsyncGenerator[asyncpg.Connection]:
    """A session, in which every error of the server becomes a PostgresError that names the server, not the password."""
    place = _place_of(admin_url, database)
    try:
        connection = await _connect(admin_url, database)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        raise PostgresError(f"{place} refuses the user or the password: check the database URL.") from None
    except TimeoutError:
        raise PostgresError(f"{place} did not answer within {_CONNECT_TIMEOUT_S} s: check host and port.") from None
    except OSError as error:
        raise PostgresError(
            f"{place} cannot be reached ({error.strerror or error}): is it running, and is the URL right?"
        ) from None
    except asyncpg.PostgresError as error:
        raise PostgresError(f"{place} cannot be used: {_first_line(error)}") from None
    except (asyncpg.InterfaceError, ValueError):
        # What the parser quotes of the URL may be a piece of the password.
        raise PostgresError(
            "The database URL cannot be read: it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with special characters in user and password percent-encoded."
        ) from None
    try:
        yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise PostgresError(
            f"{place} does not let this user prepare the database ({_first_line(error)}): "
            "use a superuser or a role with CREATEROLE and CREATEDB that made what exists already."
        ) from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise PostgresError(f"{place} could not be prepared: {_first_line(error)}") from None
    finally:
        await _close(connection)


async def _connect(admin_url: str, database: str | None) -> asyncpg.Connection:
    wait_s, limit_s = _CONNECT_TIMEOUT_S, _STATEMENT_TIMEOUT_S
    try:
        return await asyncpg.connect(admin_url, database=database, timeout=wait_s, command_timeout=limit_s)
    except asyncpg.InvalidCatalogNameError:
        if database is not None:
            raise
        # The URL names the database that is yet to be made; every server has this one to enter by.
        return await asyncpg.connect(admin_url, database="postgres", timeout=wait_s, command_timeout=limit_s)


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=_CONNECT_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _place_of(admin_url: str, database: str | None) -> str:
    """The server and database of a URL, without user and password."""
    try:
        parts = urlsplit(admin_url)
        host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "PostgreSQL"
    if "@" in parts.path + parts.query + parts.fragment:
        # A password with / ? or # that is not percent-encoded: then no part is what it seems to be.
        return "PostgreSQL"
    return f"PostgreSQL at {host}{port}/{database or parts.path.strip('/')}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


async def _check_version(server: asyncpg.Connection, admin_url: str) -> None:
    version = server.get_server_version()
    if version.major < VERSION_MIN:
        raise PostgresError(
            f"{_place_of(admin_url, None)} is version {version.major}, and Stockade needs {VERSION_MIN} or newer: "
            "upgrade it or use another server."
        )


async def _ensure_role(server: asyncpg.Connection, role: str, verifier: str) -> None:
    found = await server.fetchrow(
        "SELECT rolsuper OR rolreplication OR rolbypassrls AS is_mighty FROM pg_roles WHERE rolname = $1", role
    )
    if found is not None and found["is_mighty"]:
        # Only a superuser could take these away, and somebody gave them on purpose.
        raise PostgresError(
            f"The role {role} exists with SUPERUSER, REPLICATION or BYPASSRLS: "
            f'take that away with `ALTER ROLE "{role}" NOSUPERUSER NOREPLICATION NOBYPASSRLS` and start again.'
        )
    verb = "CREATE" if found is None else "ALTER"
    # A verifier has no quote in it: base64, digits, $, : and -.
    await server.execute(
        f"{verb} ROLE {quote_identifier(role)} LOGIN NOCREATEDB NOCREATEROLE NOINHERIT PASSWORD '{verifier}'"
    )


async def _join_owner(server: asyncpg.Connection) -> None:
    """Let an administrator who is no superuser make things for the owner's role.

    Since PostgreSQL 16 who creates a role may administer it, but neither acts as it nor has its rights unless it
    grants itself that.
    """
    if not await server.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await server.execute(f"GRANT {quote_identifier(OWNER_ROLE)} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE")


async def _ensure_database(server: asyncpg.Connection, database: str) -> None:
    """Create the database if it is missing, in byte order, so that no index depends on the server's C library."""
    if await server.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database):
        return
    is_builtin = server.get_server_version().major >= 17
    order = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'" if is_builtin else "LOCALE_PROVIDER libc LC_COLLATE 'C'"
    await server.execute(
        f"CREATE DATABASE {quote_identifier(database)} OWNER {quote_identifier(OWNER_ROLE)} "
        f"TEMPLATE template0 ENCODING 'UTF8' {order}"
    )


async def _close_database(inside: asyncpg.Connection, database: str, roles: Sequence[str]) -> None:
    """Nobody enters the database but our roles, and nobody keeps anything in the schema `public`."""
    name = quote_identifier(database)
    await inside.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    await inside.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    await inside.execute(f"GRANT CONNECT ON DATABASE {name} TO {', '.join(map(quote_identifier, roles))}")
    # The owner's role has all of these already where it owns the database, and needs them where it does not.
    await inside.execute(f"GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {name} TO {quote_identifier(OWNER_ROLE)}")
    is_open = await inside.fetchval(
        "SELECT has_database_privilege('public', current_database(), 'CONNECT, CREATE, TEMPORARY') "
        "OR has_schema_privilege('public', 'public', 'USAGE, CREATE')"
    )
    if is_open:
        # PostgreSQL only warns when whoever revokes has not granted.
        raise PostgresError(
            f"The database {database} is open to PUBLIC and this user may not change that: "
            f"have its owner run `REVOKE ALL ON DATABASE {name} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC`."
        )


async def _ensure_schema(inside: asyncpg.Connection, schema: str, roles: Sequence[str]) -> None:
    name, owner = quote_identifier(schema), quote_identifier(OWNER_ROLE)
    holder = await inside.fetchval("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = $1", schema)
    if holder is None:
        await inside.execute(f"CREATE SCHEMA {name} AUTHORIZATION {owner}")
    elif holder != OWNER_ROLE:
        raise PostgresError(
            f"The schema {schema} belongs to {holder} and not to {OWNER_ROLE}: "
            f"run `ALTER SCHEMA {name} OWNER TO {owner}` and start again."
        )
    others = [quote_identifier(role) for role in roles if role != OWNER_ROLE]
    await inside.execute(f"REVOKE ALL ON SCHEMA {name} FROM PUBLIC, {', '.join(others)}")
    await inside.execute(f"GRANT USAGE ON SCHEMA {name} TO {quote_identifier(role_of(schema))}")


async def _point_role(inside: asyncpg.Connection, database: str, schema: str) -> None:
    role = quote_identifier(role_of(schema))
    await inside.execute(
        f"ALTER ROLE {role} IN DATABASE {quote_identifier(database)} SET search_path TO {quote_identifier(schema)}"
    )
