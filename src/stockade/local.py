"""The whole product on one machine in one process: `stockade up`.

Holds the data directory, looks after PostgreSQL (its own, or the one that STOCKADE_DATABASE_URL names), makes roles,
schemas and the first administrator, serves everything behind one port, and stops cleanly on Ctrl-C or SIGTERM.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from stockade.demo import load_demo
from stockade.front import Front
from stockade.kit.context import Lifecycle
from stockade.kit.database import Database
from stockade.kit.errors import ConfigurationError, Refusal
from stockade.kit.logs import start_logging
from stockade.kit.settings import DatabaseAccess, Environment, Secret, Settings, refuse_weak_secret
from stockade.postgres import OWNER_ROLE, PostgresServer, bootstrap, hold_directory, role_of
from stockade.serving import bind, serve
from stockade.targets import SCHEMAS, SERVICES, assemble_all, migrate
from stockade.user.accounts import BOOTSTRAP, count_accounts, create_account
from stockade.user.passwords import LENGTH_MIN, hash_password
from stockade.user.shapes import LowerEmail
from stockade.user.signing import read_signing_keys

DATABASE = "stockade"
_FIRST_EMAIL = "admin@stockade.local"
_POOL_SIZE = 12
_OURS = ("stockade.lock", "postgres", "secrets")
_NOBODYS = ("lost+found",)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where the one-machine installation lives and listens."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8080
    demo: bool = False


def default_data_directory() -> Path:
    """`/var/lib/stockade` for root, whose home PostgreSQL's account could not enter; else below the user's home."""
    if os.geteuid() == 0:
        return Path("/var/lib/stockade")
    base = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".local" / "share") / "stockade"


class LocalSecrets:
    """The secrets of a one-machine installation: generated once, kept as files that only their owner reads."""

    def __init__(self, data: Path) -> None:
        self.directory = data / "secrets"
        self.services = self.directory / "services"

    def of_role(self, role: str) -> Secret:
        return self._made("role-" + role)

    def of_service(self, name: str) -> Secret:
        return self._made(f"services/{name}")

    def of_tokens(self) -> Secret:
        return self._made("jwt-secret")

    def _made(self, name: str) -> Secret:
        path = self.directory / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_hex(32) + "\n", encoding="utf-8")
            fresh.rename(path)
        return Secret(name, path=path)


def check_directory(data: Path) -> None:
    """Refuse a directory in which somebody keeps other things; what Stockade makes is not to lie between them."""
    if data.is_dir() and not any((data / name).exists() for name in _OURS):
        others = sorted(entry.name for entry in data.iterdir() if entry.name not in _NOBODYS)
        if others:
            raise ConfigurationError(
                f"{data} is not empty ({others[0]}) and holds no Stockade data: name a new or empty directory with --data."
            )


async def run_local(place: Place, say: Say) -> None:
    """Bring everything up, serve until a stop signal, and leave everything closed."""
    began = time.monotonic()
    check_directory(place.data)
    listener = bind(place.host, place.port)
    with contextlib.closing(listener):
        say(f"data: {place.data}")
        async with contextlib.AsyncExitStack() as stack:
            settings_of, server = await _prepare_database(place, say, stack)
            lifecycle = Lifecycle()
            front = Front(assemble_all(settings_of, lifecycle))
            address = f"http://{place.host}:{listener.getsockname()[1]}"

            settings = settings_of["user-service"]

            def announce() -> None:
                say(f"ready in {time.monotonic() - began:.1f} s: {address} (Ctrl-C stops it)")
                say(f"next: curl {address}/health/ready, or the walk through a day in README.md")
                if place.demo:
                    loading = asyncio.ensure_future(_load_demo(address, settings, say))
                    stack.callback(loading.cancel)

            serving = serve(
                front, listener, lifecycle, drain_delay_s=settings.drain_delay_s, drain_limit_s=settings.drain_limit_s,
                started=announce,
            )  # fmt: skip
            await _serve_beside(serving, server, lifecycle)
            say("stopping: every request is answered; closing the database")
    say("stopped")


async def _load_demo(address: str, settings: Settings, say: Say) -> None:
    assert settings.jwt_secret is not None, "made by LocalSecrets"
    try:
        await load_demo(address, read_signing_keys(settings.jwt_secret.value()), settings.issuer, say)
    except Refusal as refusal:
        say(f"demo: not loaded to the end ({refusal.detail}); start again with --demo to go on")


async def _serve_beside(
    serving: Coroutine[Any, Any, None], server: PostgresServer | None, lifecycle: Lifecycle
) -> None:
    """Serve while the database is watched; a database that cannot be kept alive ends the serving, and is the error."""
    if server is None:
        await serving
        return
    front, watch = asyncio.ensure_future(serving), asyncio.ensure_future(server.watch())
    try:
        await asyncio.wait((front, watch), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Also when a signal came before the server could take it: nothing may be served without a database.
        lifecycle.stopping.set()
        await front
        watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def _prepare_database(
    place: Place, say: Say, stack: contextlib.AsyncExitStack
) -> tuple[dict[str, Settings], PostgresServer | None]:
    environment = Environment(
        os.environ | {"STOCKADE_ENVIRONMENT": os.environ.get("STOCKADE_ENVIRONMENT", "development")}
    )
    external = environment.secret("STOCKADE_DATABASE_URL", strict=False)
    server: PostgresServer | None = None
    if external is not None:
        place.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(hold_directory(place.data))
        admin_url, database = external.value(), urlsplit(external.value()).path.lstrip("/") or DATABASE
        say("database: the one of STOCKADE_DATABASE_URL")
    else:
        server = await PostgresServer.start(place.data, say=say)
        stack.push_async_callback(server.stop)
        admin_url, database = server.url, DATABASE
    start_logging(directory=place.data)
    local = LocalSecrets(place.data)
    passwords = {role: local.of_role(role).value() for role in (OWNER_ROLE, *map(role_of, SCHEMAS))}
    await bootstrap(admin_url, database=database, schemas=SCHEMAS, passwords=passwords)
    url = without_credentials(admin_url, database)
    applied = await migrate(SERVICES, url=url, user=OWNER_ROLE, password=passwords[OWNER_ROLE], role_of=role_of)
    if count := sum(map(len, applied.values())):
        say(f"database: applied {count} migrations")
    settings_of = {service.name: _settings(service.name, service.schema, url, place, local) for service in SERVICES}
    await _ensure_administrator(settings_of["user-service"], environment, say)
    return settings_of, server


def _settings(name: str, schema: str, url: str, place: Place, local: LocalSecrets) -> Settings:
    # Made for every service before the first one reads the directory.
    service_secret = local.of_service(name)
    role = role_of(schema)
    access = DatabaseAccess(
        url=Secret("the database address", value=url), user=Secret("the role", value=role), password=local.of_role(role)
    )
    return Settings(
        environment="development", database=access, database_pool_size=_POOL_SIZE, host=place.host, port=place.port,
        jwt_secret=local.of_tokens(), service_secret=service_secret, service_secrets_directory=local.services,
    )  # fmt: skip


async def _ensure_administrator(settings: Settings, environment: Environment, say: Say) -> None:
    database = Database(service="user-service", schema="user", access=settings.database, pool_size=1)
    await database.open()
    try:
        if await database.read(count_accounts):
            return
        email = check_address(environment.text("STOCKADE_ADMIN_EMAIL", _FIRST_EMAIL))
        given = environment.secret("STOCKADE_ADMIN_PASSWORD", strict=False)
        if given is not None:
            check_first_password(given)
        password = given.value() if given else secrets.token_urlsafe(15)
        await database.run(
            create_account, actor=BOOTSTRAP, email=email, name="First administrator", password_hash=await hash_password(password),
            roles=["admin"], password_change_required=given is None,
        )  # fmt: skip
        shown = (
            "the one you gave" if given else f"{password}   (shown only now; change it with POST /api/v1/auth/password)"
        )
        say(f"first administrator: {email}, password: {shown}")
    finally:
        await database.close()


def check_address(email: str) -> str:
    """An e-mail address in the form in which people sign in with it."""
    try:
        return TypeAdapter(LowerEmail).validate_python(email)
    except ValidationError as error:
        raise ConfigurationError(f"{email!r} is not an e-mail address, so nobody could sign in with it.") from error


def check_first_password(given: Secret) -> None:
    if len(given.value()) < LENGTH_MIN:
        raise ConfigurationError(f"{given.name} must have at least {LENGTH_MIN} characters.")
    refuse_weak_secret(given)


def without_credentials(url: str, database: str) -> str:
    """The same address without user and password, for another database of the server."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"postgresql://{parts.netloc.rpartition('@')[2]}/{database}{query}"
