"""What an operator does on the command line: roles and schemas, migrations, the self-audit, accounts.

The database is the one that STOCKADE_DATABASE_URL names, entered as the owner role; without it, the one of a data
directory of `stockade up`, which may be running or not.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Generator, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg

from stockade.kit.context import Service
from stockade.kit.database import Database, connect
from stockade.kit.errors import ConfigurationError
from stockade.kit.integrity import run_checks
from stockade.kit.logs import start_logging
from stockade.kit.migrations import count_missing, load_migrations
from stockade.kit.settings import DatabaseAccess, Environment, Secret, read_database
from stockade.local import DATABASE, LocalSecrets, Say, check_address
from stockade.postgres import (
    OWNER_ROLE,
    DirectoryInUse,
    PostgresError,
    PostgresServer,
    bootstrap,
    find_socket_directory,
    role_of,
)
from stockade.targets import SCHEMAS, SERVICES, migrate, service_named
from stockade.user.accounts import BOOTSTRAP, create_account
from stockade.user.passwords import LENGTH_MIN, hash_password
from stockade.user.roles import ROLES
from stockade.user.shapes import Account

_NAME = "stockade-administration"


async def prepare_database(passwords: Path) -> None:
    """Make roles, database and schemas on the server of STOCKADE_DATABASE_URL, whose user may do so.

    `passwords` is a directory with a file for each role: `stockade_owner` and `stockade_<schema>` for each service.
    """
    access = read_database(Environment())
    url, user, password = access.current()
    roles = [OWNER_ROLE, *map(role_of, SCHEMAS)]
    wanted = {role: _read_password(passwords / role) for role in roles}
    database = urlsplit(url).path.lstrip("/") or DATABASE
    await bootstrap(_with_credentials(url, user, password), database=database, schemas=SCHEMAS, passwords=wanted)


async def migrate_database(names: Iterable[str]) -> dict[str, list[str]]:
    """Apply missing migrations as the owner role; of all services, or of the named ones. What was applied, by service."""
    url, user, password = read_database(Environment()).current()
    services = [service_named(name) for name in names] or SERVICES
    with _told_plainly():
        return await migrate(services, url=url, user=user, password=password, role_of=role_of)


async def check_integrity(data: Path, say: Say) -> list[dict[str, Any]]:
    """Prove every invariant of every service now; the findings (`stockade.kit.integrity`)."""
    findings: list[dict[str, Any]] = []
    async with open_access(data, say) as access:
        for service in SERVICES:
            if not service.checks:
                continue
            say(f"checking {service.name}: {', '.join(check.id for check in service.checks)}")
            async with _opened(access, service) as database:
                findings += await database.run(run_checks, checks=service.checks, service=service.name)
    return findings


async def create_user(data: Path, say: Say, *, email: str, name: str, roles: list[str]) -> tuple[Account, str | None]:
    """A new account; its password comes from STOCKADE_USER_PASSWORD (or `_FILE`), else one is made and returned."""
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        raise ConfigurationError(f"Unknown role {', '.join(unknown) or '(none)'}; choose of {', '.join(ROLES)}.")
    if not name.strip():
        raise ConfigurationError("Give a name.")
    address = check_address(email)
    given = Environment().secret("STOCKADE_USER_PASSWORD")
    if given is not None and len(given.value()) < LENGTH_MIN:
        raise ConfigurationError(f"{given.name} must have at least {LENGTH_MIN} characters.")
    password = given.value() if given else secrets.token_urlsafe(15)
    async with open_access(data, say) as access, _opened(access, service_named("user-service")) as database:
        account = await database.run(
            create_account, actor=BOOTSTRAP, email=address, name=name, password_hash=await hash_password(password),
            roles=roles, password_change_required=given is None,
        )  # fmt: skip
    return account, None if given else password


@contextlib.asynccontextmanager
async def open_access(data: Path, say: Say) -> AsyncGenerator[DatabaseAccess]:
    """How to enter the database as the owner role. A data directory whose server is down is served meanwhile."""
    if os.environ.get("STOCKADE_DATABASE_URL") or os.environ.get("STOCKADE_DATABASE_URL_FILE"):
        yield read_database(Environment())
        return
    if not (data / "postgres").is_dir():
        raise ConfigurationError(f"{data} holds no Stockade data; name another --data, or set STOCKADE_DATABASE_URL.")
    try:
        server = await PostgresServer.start(data, say=say)
    except DirectoryInUse:
        yield _local_access(data, find_socket_directory(data))
        return
    try:
        yield _local_access(data, server.socket_directory)
    finally:
        await server.stop()


def _read_password(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{path}, which is to hold a password, cannot be read ({reason}).") from error
    if not password:
        raise ConfigurationError(f"{path}, which is to hold a password, is empty.")
    return password


def _local_access(data: Path, socket_directory: Path) -> DatabaseAccess:
    url = f"postgresql:///{DATABASE}?host={quote(str(socket_directory), safe='/')}"
    owner = Secret("the role", value=OWNER_ROLE)
    return DatabaseAccess(
        url=Secret("the address", value=url), user=owner, password=LocalSecrets(data).of_role(OWNER_ROLE)
    )


@contextlib.asynccontextmanager
async def _opened(access: DatabaseAccess, service: Service) -> AsyncGenerator[Database]:
    """The tables of a service, after a look whether the database is there and is of this version."""
    # What these commands print is their result; a warning does not belong in it.
    start_logging(stream=sys.stderr)
    await _check_schema(access, service)
    database = Database(service=_NAME, schema=service.schema, access=access, pool_size=1)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def _check_schema(access: DatabaseAccess, service: Service) -> None:
    url, user, password = access.current()
    with _told_plainly():
        connection = await connect(url, user=user, password=password, application=_NAME, schema=service.schema)
        try:
            missing = await count_missing(connection, load_migrations(service.package))
        finally:
            await connection.close()
    if missing:
        raise PostgresError(f"{service.name} misses {missing} of its migrations: run `stockade migrate` first.")


@contextlib.contextmanager
def _told_plainly() -> Generator[None]:
    """What goes wrong with the database in a line, with the next step and without the address, which may hold a password."""
    try:
        yield
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise PostgresError(
            "The database refuses the user or the password: check STOCKADE_DATABASE_USER and STOCKADE_DATABASE_PASSWORD."
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise PostgresError(f"{_first_line(error)}: run `stockade bootstrap` first.") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise PostgresError(f"{_first_line(error)}: enter the database as {OWNER_ROLE}.") from error
    except OSError as error:  # A time-out is one, too.
        said = error.strerror or "no answer"
        raise PostgresError(
            f"The database cannot be reached ({said}): is it running, and is STOCKADE_DATABASE_URL right?"
        ) from error
    except ValueError as error:
        raise PostgresError(
            "STOCKADE_DATABASE_URL cannot be read: it is postgresql://HOST:PORT/DATABASE, with special characters encoded."
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise PostgresError(f"The database could not do it: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _with_credentials(url: str, user: str | None, password: str | None) -> str:
    if user is None:
        return url
    parts = urlsplit(url)
    credentials = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return parts._replace(netloc=f"{credentials}@{parts.netloc.rpartition('@')[2]}").geturl()
