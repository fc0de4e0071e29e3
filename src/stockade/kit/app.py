"""The HTTP application of a service: the request gate, problem documents, health, metrics, and an orderly end.

The gate is the outermost layer of every request: it gives it an identity (X-Request-ID, trace, deadline), bounds its
body, counts and logs it, and turns whatever escapes from below into a problem document that leaks nothing.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from stockade import __version__
from stockade.kit.auth import Actor, require
from stockade.kit.calls import deadline
from stockade.kit.context import Context
from stockade.kit.errors import (
    PROBLEM_TYPE,
    BadRequest,
    ConfigurationError,
    FieldError,
    Invalid,
    KeyRequired,
    Refusal,
    TooLarge,
)
from stockade.kit.events import feed_router
from stockade.kit.idempotency import forget_old_keys
from stockade.kit.ids import uuid7
from stockade.kit.integrity import run_checks
from stockade.kit.logs import actor_id, get_logger, request_id, trace_id
from stockade.kit.metrics import REQUEST_SECONDS, REQUESTS, REQUESTS_IN_PROGRESS, render
from stockade.kit.migrations import count_missing, load_migrations

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_ERRORS_MAX = 20
_READY_TIMEOUT_S = 2.0
_AUDIT_EVERY_S = 300

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; made for programs."},
        "detail": {"type": "string", "description": "For people."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "code": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    group: {"description": "A problem document (RFC 9457).", "content": {PROBLEM_TYPE: {"schema": PROBLEM_SCHEMA}}}
    for group in ("4XX", "5XX")
}


def create_app(context: Context) -> FastAPI:
    """The application of one service, ready to be served or mounted; its lifespan opens and closes what it needs."""
    service = context.service
    app = FastAPI(
        title=f"Stockade {service.name}", version=__version__, lifespan=_lifespan, responses=_PROBLEM_RESPONSES,
        docs_url=None, redoc_url=None, separate_input_output_schemas=False, telemetry={"tracing": False},
    )  # fmt: skip
    app.state.context = context
    for router in (*service.routers, feed_router()):
        app.include_router(router)
    _add_probes(app, context)
    _add_integrity(app, context)
    app.add_exception_handler(Refusal, _answer_refusal)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, _answer_validation)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, _answer_http)  # pyright: ignore[reportArgumentType]
    app.add_middleware(RequestGate, context=context)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    context: Context = app.state.context
    await context.database.open()
    context.background.repeat("watch database", context.database.watch, every_s=5)
    context.background.repeat("forget old keys", lambda: context.database.run(forget_old_keys), every_s=600)
    if checks := context.service.checks:
        audit = lambda: context.database.run(run_checks, checks=checks, service=context.service.name)  # noqa: E731
        context.background.repeat("integrity", audit, every_s=_AUDIT_EVERY_S)
    context.background.start()
    try:
        yield
    finally:
        context.lifecycle.stopping.set()
        await context.background.stop()
        for client in context.clients.values():
            await client.close()
        await context.database.close()


def _add_probes(app: FastAPI, context: Context) -> None:
    @app.get("/health", include_in_schema=False)
    async def get_health() -> dict[str, str]:
        return {"status": "alive", "service": context.service.name, "version": __version__}

    @app.get("/health/ready", include_in_schema=False)
    async def get_readiness() -> JSONResponse:
        reason = await find_unreadiness(context)
        return JSONResponse(
            {"status": "not ready" if reason else "ready", "reason": reason}, status_code=503 if reason else 200
        )

    @app.get("/metrics", include_in_schema=False)
    async def get_metrics() -> Response:
        body, media_type = render()
        return Response(body, media_type=media_type)


def _add_integrity(app: FastAPI, context: Context) -> None:
    checks, name = context.service.checks, context.service.name

    @app.get("/internal/integrity", include_in_schema=False)
    async def get_findings(_: Actor = require("integrity:read")) -> list[dict[str, Any]]:
        return await context.database.run(run_checks, checks=checks, service=name)


async def find_unreadiness(context: Context) -> str | None:
    """Why this service should get no requests now, or None: draining, database away, migrations missing or too new."""
    if context.lifecycle.draining:
        return "draining"
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            missing = await context.database.read(count_missing, load_migrations(context.service.package))
    except (Refusal, TimeoutError):
        return "the database is not reachable"
    except ConfigurationError as error:
        return str(error)
    return f"{missing} migrations are missing: run `stockade migrate`" if missing else None


class RequestGate:
    """Outermost ASGI layer of a service; see the module's docstring."""

    def __init__(self, app: Any, *, context: Context) -> None:
        self.app = app
        self.context = context
        self.name = context.service.name
        self.log = get_logger(self.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in _GATE_HEADERS}
        self._identify(headers)
        exchange = _Exchange(send, draining=lambda: self.context.lifecycle.draining)
        in_progress = REQUESTS_IN_PROGRESS.labels(self.name)
        in_progress.inc()
        began = time.perf_counter()
        try:
            _check_target(scope)
            await self.app(scope, self._bounded(receive, headers), exchange.send)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except Exception:
            self.log.exception(
                "unexpected error", **{"http.request.method": scope["method"], "url.path": _route(scope)}
            )
            await exchange.refuse(Refusal("Something went wrong here; the request id finds it in the logs."))
        finally:
            in_progress.dec()
            self._record(scope, exchange.status, time.perf_counter() - began)

    def _identify(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id.set(given if _REQUEST_ID.match(given) else str(uuid7()))
        trace = _TRACEPARENT.match(headers.get(b"traceparent", b"").decode("latin-1"))
        trace_id.set(trace.group(1) if trace else uuid7().hex)
        actor_id.set("")
        limit_s = self.context.settings.request_deadline_s
        if (asked := headers.get(b"x-stockade-deadline-ms", b"")).isdigit():
            limit_s = min(limit_s, int(asked[:9]) / 1000)
        deadline.set(time.monotonic() + limit_s)

    def _bounded(self, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        limit = self.context.settings.body_limit_bytes
        refusal = TooLarge(
            f"The body is larger than {limit} bytes; send it in parts.", code="body_too_large", limit_bytes=limit
        )
        if (declared := headers.get(b"content-length", b"")).isdigit() and int(declared[:19]) > limit:
            raise refusal
        seen = 0

        async def bounded() -> Any:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _BodyTooLarge(refusal)
            return message

        return bounded

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _route(scope), scope["method"]
        method = method if method in _METHODS else "OTHER"
        REQUESTS.labels(self.name, method, route, str(status)).inc()
        REQUEST_SECONDS.labels(self.name, method, route).observe(seconds)
        if status >= 500 or (status >= 400 and route not in _PROBES) or seconds > 1:
            fields = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            self.log.info("request", **fields, **{"event.duration": int(seconds * 1e9)})


_GATE_HEADERS = frozenset((b"x-request-id", b"traceparent", b"x-stockade-deadline-ms", b"content-length"))
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_PROBES = frozenset(("/health", "/health/ready", "/metrics"))


class _BodyTooLarge(HTTPException):
    """The refusal in the one form that FastAPI lets through while it reads a body; of others it makes a 400."""

    def __init__(self, refusal: TooLarge) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


class _Exchange:
    """Watches one answer on its way out and adds the headers that every answer has."""

    def __init__(self, send: Send, *, draining: Callable[[], bool]) -> None:
        self._send = send
        self._draining = draining
        self.status = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [
                *message.get("headers", ()),
                (b"x-request-id", request_id.get().encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if self._draining():
                # Tells a client with a kept connection to leave before the socket closes under its next request.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        if self.status:
            return  # The answer has begun; the server closes the connection, which tells the client that it is cut.
        response = problem(refusal)
        await self.send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self.send({"type": "http.response.body", "body": bytes(response.body)})


def problem(refusal: Refusal) -> Response:
    """The HTTP form of a refusal."""
    if request_id.get():
        refusal.data.setdefault("request_id", request_id.get())
    return Response(refusal.body(), status_code=refusal.status, headers=refusal.headers, media_type=PROBLEM_TYPE)


async def _answer_refusal(_: Request, refusal: Refusal) -> Response:
    return problem(refusal)


async def _answer_validation(_: Request, error: RequestValidationError) -> Response:
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return problem(BadRequest("The body is not valid JSON.", code="invalid_json"))
    for item in found:
        if item["type"] == "missing" and (known := _REQUIRED_HEADERS.get(item["loc"][-1])):
            return problem(KeyRequired(f"Send {item['loc'][-1]}, {known[1]}.", code=known[0]))
    errors = [_field_error(item) for item in found[:_ERRORS_MAX]]
    first = errors[0]
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    return problem(Invalid(f"{first['pointer'] or 'the body'}: {first['detail']}{more}", errors=errors))


_REQUIRED_HEADERS = {
    "Idempotency-Key": ("idempotency_key_required", "so that a retry cannot do it twice"),
    "If-Match": ("if_match_required", "with the ETag that you read, so that nobody's change is lost"),
}


async def _answer_http(request: Request, error: HTTPException) -> Response:
    if isinstance(error, _BodyTooLarge):
        return problem(error.refusal)
    if error.status_code == 400:
        return problem(BadRequest("The body cannot be read; it must be JSON in UTF-8.", code="invalid_json"))
    kind = type("HttpRefusal", (Refusal,), {"status": error.status_code, "title": str(error.detail)})
    refusal: Refusal = kind(str(error.detail), code=_HTTP_CODES.get(error.status_code, "http_error"))
    refusal.headers.update(error.headers or {})
    if error.status_code == 405 and (methods := _find_methods(request)):
        refusal.headers["Allow"] = ", ".join(sorted(methods))
    return problem(refusal)


def _find_methods(request: Request) -> set[str]:
    """All that may be done at an address; the framework names what its first route there may do."""
    context: Context = request.app.state.context
    routes = [route for router in context.service.routers for route in router.routes if isinstance(route, APIRoute)]
    return {
        method for route in routes if route.path_regex.match(request.scope["path"]) for method in route.methods or ()
    }


_HTTP_CODES = {404: "no_such_route", 405: "method_not_allowed", 413: "body_too_large", 415: "unsupported_media_type"}


def _field_error(item: Any) -> FieldError:
    place, *path = item["loc"]
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    return {"pointer": pointer if place == "body" else f"{place}{pointer}", "code": item["type"], "detail": item["msg"]}


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return getattr(route, "path", "unmatched")


def _check_target(scope: Scope) -> None:
    # PostgreSQL's text cannot hold NUL; a path or query with one names nothing.
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise BadRequest("The address contains a NUL character.", code="invalid_address")
