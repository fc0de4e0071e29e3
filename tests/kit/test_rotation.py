"""Secrets and credentials rotate under running services, and no request fails for it."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pytest

from stockade.kit.settings import DatabaseAccess, Secret
from stockade.postgres import role_of
from stockade.user.accounts import BOOTSTRAP, create_account
from stockade.user.passwords import hash_password
from tests.conftest import PASSWORDS, ServerThread
from tests.kit.probe import Running, make_context, make_settings, running
from tests.world import World

ROLE = role_of("user")
OLD = PASSWORDS[ROLE]
NEW = "the-next-password-of-the-role"


def swap(path: Path, text: str) -> None:
    """Replace a file at once, as Kubernetes and Vault do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


@dataclass
class Rotating:
    """A probe whose credentials are in files, and the administrator who changes them."""

    probe: Running
    admin: asyncpg.Connection
    user: Path
    password: Path

    async def while_asked(self, change: Callable[[], Awaitable[None]]) -> list[int]:
        """The statuses of requests that never pause while a change is made, and for a while after it."""
        statuses: list[int] = []
        over = asyncio.Event()

        async def ask_all_the_time(number: int) -> None:
            while not over.is_set():
                body = {"text": f"while rotating {number}"}
                statuses.append((await self.probe.ask("POST", "/api/v1/probes", body)).status_code)
                statuses.append((await self.probe.ask("GET", "/api/v1/probes")).status_code)

        asking = [asyncio.create_task(ask_all_the_time(number)) for number in range(6)]
        await asyncio.sleep(0.3)
        await change()
        await asyncio.sleep(0.3)
        over.set()
        await asyncio.gather(*asking)
        return statuses

    async def sessions_of(self, role: str) -> int:
        return await self.admin.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND datname = $2", role, self.database
        )

    @property
    def database(self) -> str:
        return self.probe.context.settings.database.url.value().partition("?")[0].rpartition("/")[2]


@pytest.fixture
async def rotating(database_url: str, postgres: ServerThread, tmp_path: Path) -> AsyncGenerator[Rotating]:
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text(ROLE)
    password.write_text(OLD)
    access = DatabaseAccess(
        Secret("url", value=database_url), Secret("user", path=user), Secret("password", path=password)
    )
    settings = replace(make_settings(database_url, PASSWORDS), database=access)
    admin = await asyncpg.connect(postgres.server.url)
    try:
        async with running(make_context(settings)) as probe:
            yield Rotating(probe, admin, user, password)
    finally:
        await admin.execute(f"ALTER ROLE {ROLE} PASSWORD '{OLD}'")
        await admin.close()


async def test_a_changed_password_reaches_the_pool_without_a_failed_request(rotating: Rotating):
    async def change() -> None:
        await rotating.admin.execute(f"ALTER ROLE {ROLE} PASSWORD '{NEW}'")
        swap(rotating.password, NEW)
        await rotating.probe.database.watch()

    statuses = await rotating.while_asked(change)
    assert len(statuses) > 12
    assert set(statuses) == {200, 201}
    await rotating.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND datname = $2",
        ROLE,
        rotating.database,
    )
    assert (await rotating.probe.ask("GET", "/api/v1/probes")).status_code == 200


async def test_a_new_user_of_the_same_rights_takes_over_every_connection(rotating: Rotating):
    """As Vault rotates: another role with the same rights, and later the old one is dropped."""
    heir = f"{ROLE}_heir_{os.getpid()}"
    await rotating.admin.execute(f"CREATE ROLE {heir} LOGIN PASSWORD '{NEW}' IN ROLE {ROLE}")
    await rotating.admin.execute(f"GRANT CONNECT ON DATABASE {rotating.database} TO {heir}")
    try:

        async def change() -> None:
            swap(rotating.password, NEW)
            swap(rotating.user, heir)
            await rotating.probe.database.watch()

        statuses = await rotating.while_asked(change)
        assert len(statuses) > 12
        assert set(statuses) == {200, 201}
        assert await rotating.sessions_of(heir) > 0
        assert await rotating.sessions_of(ROLE) == 0
    finally:
        swap(rotating.user, ROLE)
        swap(rotating.password, OLD)
        await rotating.probe.database.watch()
        for _ in range(10):
            await rotating.probe.ask("GET", "/api/v1/probes")
        await rotating.admin.execute(f"REVOKE ALL ON DATABASE {rotating.database} FROM {heir}")
        await rotating.admin.execute(f"DROP ROLE {heir}")


async def test_wrong_credentials_are_told_and_heal_by_themselves(rotating: Rotating):
    swap(rotating.password, "wrong")
    await rotating.probe.database.watch()
    answer = await rotating.probe.ask("GET", "/api/v1/probes")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers
    assert "wrong" not in answer.text
    assert (await rotating.probe.http.get("/health/ready")).status_code == 503
    swap(rotating.password, OLD)
    assert (await rotating.probe.ask("GET", "/api/v1/probes")).status_code == 200


async def test_a_password_file_that_vanishes_for_a_moment_harms_nobody(rotating: Rotating):
    async def change() -> None:
        rotating.password.unlink()
        await rotating.probe.database.watch()
        await asyncio.sleep(0.1)
        rotating.password.write_text(OLD)

    assert set(await rotating.while_asked(change)) == {200, 201}


async def test_a_service_follows_when_its_own_secret_rotates(world: World):
    """The secret with which inventory gets its token is a file on both sides."""
    inventory, users = world.context("inventory-service"), world.context("user-service")
    directory = users.settings.service_secrets_directory
    assert directory is not None
    client = inventory.clients["user-service"]
    assert client._fetch_token is not None
    first = await client._fetch_token()
    swap(directory / "inventory-service", "the next secret of the inventory-service")
    tokens = client._fetch_token.__self__  # pyright: ignore[reportFunctionMemberAccess]
    tokens._renew_at = 0.0
    second = await client._fetch_token()
    assert (first.count("."), second.count(".")) == (2, 2)
    refused = await world.http.post("/internal/service-tokens", json={})
    assert refused.status_code == 404, "what is internal is not reachable through the front"


OLD_LINE, NEW_LINE = (
    "the first line of the signing secret, long enough",
    "the second line of the signing secret, as long",
)
PASSWORD = "correct horse battery staple"


async def sign_in(world: World) -> dict[str, str]:
    answer = await world.anonymous().post("/auth/login", {"email": "ann@example.com", "password": PASSWORD}, expect=200)
    return {"Authorization": f"Bearer {answer['access_token']}"}


async def test_the_signing_secret_rotates_in_its_file_under_those_who_are_signed_in(world: World, tmp_path: Path):
    """First both lines verify, then the old one is withdrawn; nobody restarts anything."""
    path = tmp_path / "jwt-secret"
    path.write_text(f"{OLD_LINE}\n")
    users, inventory = world.context("user-service"), world.context("inventory-service")
    users.settings = replace(users.settings, jwt_secret=Secret("STOCKADE_JWT_SECRET", path=path))
    password_hash = await hash_password(PASSWORD)
    await users.database.run(
        create_account,
        actor=BOOTSTRAP,
        email="ann@example.com",
        name="Ann",
        password_hash=password_hash,
        roles=["viewer"],
    )

    async def look(headers: dict[str, str]) -> int:
        return (await world.http.get("/api/v1/warehouses", headers=headers)).status_code

    old = await sign_in(world)
    assert await look(old) == 200
    swap(path, f"{NEW_LINE}\n{OLD_LINE}\n")
    inventory.verifier._fetched_at -= 6  # A key that is not known may be asked for every five seconds.
    new = await sign_in(world)
    assert [await look(new), await look(old)] == [200, 200]
    swap(path, f"{NEW_LINE}\n")
    inventory.verifier._fetched_at -= 301
    assert [await look(new), await look(old)] == [200, 401]
    published = (await world.http.get("/.well-known/jwks.json")).json()
    assert [set(key) & {"d", "k"} for key in published["keys"]] == [set()], "the private half is never published"
