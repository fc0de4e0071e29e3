"""A service of the tests' own, made of the kit alone: what holds for it holds for every service.

It lives in the schema of the user-service, whose kit tables are like everybody's, and its verbs write into the outbox,
so that an effect can be counted.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import httpx2
from fastapi import APIRouter, FastAPI, Query, Response
from pydantic import Field

from stockade.kit.app import create_app
from stockade.kit.auth import Actor, TokenVerifier, require
from stockade.kit.background import Background
from stockade.kit.calls import ServiceClient, Transport
from stockade.kit.context import Context, Ctx, Lifecycle, Service
from stockade.kit.database import Connection, Database
from stockade.kit.errors import Conflict
from stockade.kit.events import Event, publish
from stockade.kit.idempotency import MandatoryKey, OptionalKey, answer_once
from stockade.kit.ids import uuid7
from stockade.kit.pages import CursorText, Page, PageSize, decode_cursor, paginate
from stockade.kit.settings import Settings
from stockade.kit.shapes import PositiveQuantity, Shape
from stockade.serving import bind, serve
from stockade.user.signing import read_signing_keys
from tests.world import JWT_SECRET, issue_token, settings_for

NAME = "probe-service"
router = APIRouter(prefix="/api/v1")


class NewProbe(Shape):
    text: Annotated[str, Field(max_length=2_000_000)]
    quantity: PositiveQuantity | None = None
    pause_s: float = 0
    """How long the verb holds its transaction open before it ends."""


class Probe(Shape):
    id: str
    text: str


async def note(connection: Connection, *, actor: Actor, request: NewProbe) -> Probe:
    """One effect: one event. The text `refuse` is refused, after the effect."""
    probe = Probe(id=str(uuid7()), text=request.text)
    await publish(connection, Event("probe.noted", request.text[:50], {"by": actor.responsible}))
    await asyncio.sleep(request.pause_s)
    if request.text == "refuse":
        raise Conflict("This text is refused.", code="text_refused", lines=[{"text": request.text}])
    return probe


async def note_once(connection: Connection, *, actor: Actor, request: NewProbe) -> Probe:
    """As `note`, and refused when there is such an event already: what is left is only enough for one."""
    await connection.execute("SELECT pg_advisory_xact_lock(7)")
    if await connection.fetchval("SELECT true FROM outbox WHERE subject = $1", request.text):
        raise Conflict("Somebody was faster.", code="too_late")
    return await note(connection, actor=actor, request=request)


async def write_effect(connection: Connection, *, subject: str) -> None:
    await publish(connection, Event("probe.written", subject, {}))


async def count_effects(connection: Connection, *, subject: str) -> int:
    return await connection.fetchval("SELECT count(*) FROM outbox WHERE subject = $1", subject)


async def list_effects(connection: Connection, *, limit: int, cursor: str | None) -> Page[str]:
    (after,) = decode_cursor(cursor, int) or (0,)
    rows = await connection.fetch(
        "SELECT position, subject FROM outbox WHERE position > $1 ORDER BY position LIMIT $2", after, limit + 1
    )
    page, following = paginate(rows, limit, lambda row: (row["position"],))
    return Page(items=[row["subject"] for row in page], next=following)


async def sleep(connection: Connection, *, seconds: float) -> None:
    await connection.execute("SELECT pg_sleep($1)", seconds)


@router.post("/probes", status_code=201, response_model=Probe)
async def post_probe(context: Ctx, body: NewProbe, key: OptionalKey, actor: Actor = require("stock:read")) -> Response:
    return await answer_once(context.database, key, note, actor=actor, request=body)


@router.post("/probes/once", status_code=201, response_model=Probe)
async def post_probe_once(
    context: Ctx, body: NewProbe, key: MandatoryKey, actor: Actor = require("stock:read")
) -> Response:
    return await answer_once(context.database, key, note_once, actor=actor, request=body)


@router.get("/probes")
async def get_probes(
    context: Ctx, limit: PageSize = 10, cursor: CursorText = None, _: Actor = require("stock:read")
) -> Page[str]:
    return await context.database.read(list_effects, limit=limit, cursor=cursor)


@router.get("/probes/crash")
async def get_crash() -> None:
    raise RuntimeError("the private reason")


@router.get("/probes/sleep")
async def get_sleep(context: Ctx, seconds: Annotated[float, Query(le=10)]) -> None:
    await context.database.read(sleep, seconds=seconds)


@router.get("/probes/me")
async def get_me(actor: Actor = require("stock:read")) -> dict[str, Any]:
    return {"id": actor.id, "kind": actor.kind, "responsible": actor.responsible}


@router.get("/probes/texts/{text}")
async def get_text(text: str, search: str = "") -> dict[str, str]:
    return {"text": text, "search": search}


SERVICE = Service(name=NAME, package="stockade.user", owns=("probes",), routers=(router,))


@dataclass
class Running:
    """The probe in this process, with a client."""

    app: FastAPI
    http: httpx2.AsyncClient

    @property
    def context(self) -> Context:
        return self.app.state.context

    @property
    def database(self) -> Database:
        return self.context.database

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """A request of a viewer, or with other headers."""
        headers = {"Authorization": f"Bearer {issue_token(('viewer',))}"} | dict(options.pop("headers", {}))
        if body is not None:
            options["json"] = body
        return await self.http.request(method, path, headers=headers, **options)


async def fetch_public_keys() -> Mapping[str, Any]:
    return read_signing_keys(JWT_SECRET).public_document()


def make_context(settings: Settings, *, service: Service = SERVICE, lifecycle: Lifecycle | None = None) -> Context:
    return Context(
        service=service,
        settings=settings,
        database=Database(
            service=service.name, schema=service.schema, access=settings.database, pool_size=settings.database_pool_size
        ),
        clients={},
        verifier=TokenVerifier(fetch_keys=fetch_public_keys, issuer=settings.issuer),
        lifecycle=lifecycle or Lifecycle(),
        background=Background(service.name),
    )


def make_settings(url: str, passwords: Mapping[str, str], **changes: Any) -> Settings:
    """The settings of the user-service's role, without the files of a whole world."""
    with tempfile.TemporaryDirectory(prefix="stockade-secrets-") as directory:
        Path(directory, NAME).write_text("the secret of the probe in the tests")
        return replace(settings_for(NAME, SERVICE.schema, url, passwords, Path(directory)), **changes)


@contextlib.asynccontextmanager
async def running(context: Context) -> AsyncGenerator[Running]:
    """The probe behind an in-process transport."""
    app = create_app(context)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://probe", timeout=30) as http,
    ):
        yield Running(app, http)


@dataclass
class Served(Running):
    """The probe behind a real port."""

    port: int
    ended: "asyncio.Task[None]"


@contextlib.asynccontextmanager
async def served(context: Context, *, drain_delay_s: float = 0.0) -> AsyncGenerator[Served]:
    """The probe on a loopback port, as a process serves it."""
    app = create_app(context)
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    started = asyncio.Event()
    serving = asyncio.create_task(
        serve(app, listener, context.lifecycle, drain_delay_s=drain_delay_s, drain_limit_s=5, started=started.set)
    )
    try:
        await asyncio.wait_for(started.wait(), 10)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            yield Served(app, http, port, serving)
    finally:
        context.lifecycle.stopping.set()
        await asyncio.wait_for(serving, 15)
        listener.close()


def client_of(transport: Transport, **options: Any) -> ServiceClient:
    return ServiceClient(service="test", target=NAME, transport=transport, fetch_token=None, **options)
