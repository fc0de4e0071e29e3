"""What a test talks to: the whole product in this process, through its public API, as somebody with a role."""

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2

from stockade.front import Front
from stockade.kit.auth import AUDIENCE
from stockade.kit.context import Context, Lifecycle
from stockade.kit.ids import uuid7
from stockade.kit.settings import DatabaseAccess, Secret, Settings
from stockade.postgres import role_of
from stockade.targets import NAMES, SERVICES, assemble_all
from stockade.user.roles import permissions_of
from stockade.user.signing import SigningKeys, read_signing_keys

JWT_SECRET = "the signing secret of the tests, which is long enough"


class Api:
    """A client that holds a token. Every POST gets an Idempotency-Key of its own unless one is given (`key=None`: none)."""

    def __init__(self, http: httpx2.AsyncClient, token: str | None) -> None:
        self.http = http
        self.token = token

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = "", **options: Any
    ) -> httpx2.Response:
        """The raw answer."""
        headers = dict(options.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if method == "POST" and key is not None:
            headers.setdefault("Idempotency-Key", key or str(uuid7()))
        if body is not None:
            options["json"] = body
        return await self.http.request(
            method, path if path.startswith("/internal") else f"/api/v1{path}", headers=headers, **options
        )

    async def get(self, path: str, expect: int = 200, **query: Any) -> Any:
        """The JSON of an answer with the expected status."""
        return _read(await self.request("GET", path, params=query), expect)

    async def post(self, path: str, body: Any = None, expect: int = 201, **options: Any) -> Any:
        return _read(await self.request("POST", path, body, **options), expect)

    async def patch(self, path: str, body: Any, *, if_match: str, expect: int = 200) -> Any:
        return _read(await self.request("PATCH", path, body, headers={"If-Match": if_match}), expect)


def _read(answer: httpx2.Response, expect: int) -> Any:
    assert answer.status_code == expect, (
        f"{answer.request.method} {answer.request.url}: {answer.status_code}, not {expect}: {answer.text}"
    )
    return answer.json() if answer.content else None


@dataclass
class World:
    """The running product of one test."""

    url: str
    admin_url: str
    passwords: Mapping[str, str]
    front: Front
    http: httpx2.AsyncClient

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, passwords: Mapping[str, str], *, admin_url: str) -> AsyncGenerator["World"]:
        with tempfile.TemporaryDirectory(prefix="stockade-secrets-") as directory:
            for name in NAMES:
                Path(directory, name).write_text(f"the secret of {name} in the tests")
            settings = {s.name: settings_for(s.name, s.schema, url, passwords, Path(directory)) for s in SERVICES}
            front = Front(assemble_all(settings, Lifecycle()))
            async with contextlib.AsyncExitStack() as stack:
                for app in front.apps.values():
                    await stack.enter_async_context(app.router.lifespan_context(app))
                transport = httpx2.ASGITransport(app=front, raise_app_exceptions=False)
                http = await stack.enter_async_context(
                    httpx2.AsyncClient(transport=transport, base_url="http://stockade", timeout=30)
                )
                yield cls(url, admin_url, passwords, front, http)

    def context(self, service: str) -> Context:
        return self.front.apps[service].state.context

    def as_(self, *roles: str, subject: str | None = None) -> Api:
        """A client of a person with these roles."""
        return Api(self.http, issue_token(roles, subject=subject))

    def anonymous(self) -> Api:
        return Api(self.http, None)

    async def connect(self, schema: str, *, role: str | None = None) -> asyncpg.Connection:
        """A raw connection, as the service's own role unless another is named (`stockade_owner`)."""
        user = role or role_of(schema)
        return await asyncpg.connect(
            self.url, user=user, password=self.passwords[user], server_settings={"search_path": f'"{schema}"'}
        )

    async def connect_as_superuser(self, schema: str) -> asyncpg.Connection:
        """A raw connection that may break the books, to see them noticed."""
        parts = urlsplit(self.url)
        address = self.admin_url.replace("/postgres?", f"{parts.path}?")
        return await asyncpg.connect(address, server_settings={"search_path": f'"{schema}"'})


def settings_for(name: str, schema: str, url: str, passwords: Mapping[str, str], secrets_directory: Path) -> Settings:
    """The settings of one service of a test."""
    role = role_of(schema)
    access = DatabaseAccess(
        url=Secret("url", value=url),
        user=Secret("user", value=role),
        password=Secret("password", value=passwords[role]),
    )
    return Settings(
        environment="development",
        database=access,
        database_pool_size=int(os.environ.get("STOCKADE_TEST_POOL", "8")),
        jwt_secret=Secret("jwt", value=JWT_SECRET),
        service_secret=Secret("service", path=secrets_directory / name),
        service_secrets_directory=secrets_directory,
    )


def issue_token(
    roles: tuple[str, ...], *, subject: str | None = None, keys: SigningKeys | None = None, **claims: Any
) -> str:
    """A token as the user-service would sign it for a person with these roles; `claims` override single ones."""
    now = int(time.time())
    content = {
        "iss": "stockade", "aud": AUDIENCE, "sub": subject or str(uuid7()), "kind": "user", "iat": now, "exp": now + 300,
        "roles": list(roles), "permissions": sorted(permissions_of(roles)),
    }  # fmt: skip
    return (keys or read_signing_keys(JWT_SECRET)).sign(content | claims)
