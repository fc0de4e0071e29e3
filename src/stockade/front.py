"""All services behind one port: the first part of the path after /api/v1 chooses the service, nothing is rewritten.

What is internal (/internal, the probes of single services) is not reachable here. The front has the probes of the
process and the merged OpenAPI document.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, cast

from fastapi import FastAPI

from stockade import __version__
from stockade.kit.app import Receive, RequestGate, Scope, Send, find_unreadiness
from stockade.kit.context import Context, Service
from stockade.kit.errors import NotFound
from stockade.kit.metrics import render

_ROOT_JWKS = ".well-known"


class Front:
    """The ASGI application of `stockade up`."""

    def __init__(self, apps: Mapping[str, FastAPI]) -> None:
        self.apps = apps
        self.contexts: list[Context] = [app.state.context for app in apps.values()]
        self.routes = {name: apps[context.service.name] for context in self.contexts for name in context.service.owns}
        self._openapi = b""
        own = replace(self.contexts[0], service=Service("stockade", "stockade", owns=(), routers=()))
        self._own = RequestGate(self._answer_own, context=own)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self.routes.get(_first_name(scope["path"]), self._own)(scope, receive, send)

    async def _answer_own(self, scope: Scope, _: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path == "/health":
            await _reply(send, 200, {"status": "alive", "version": __version__})
        elif path == "/health/ready":
            reasons = await self._find_unreadiness()
            await _reply(
                send, 503 if reasons else 200, {"status": "not ready" if reasons else "ready", "reasons": reasons}
            )
        elif path == "/metrics":
            body, media_type = render()
            await _send(send, 200, body, media_type)
        elif path in ("/openapi.json", "/api/v1/openapi.json"):
            await _send(send, 200, self._render_openapi(), "application/json")
        else:
            raise NotFound("There is nothing at this address; /openapi.json lists what there is.", code="no_such_route")

    async def _find_unreadiness(self) -> dict[str, str]:
        found = await asyncio.gather(*map(find_unreadiness, self.contexts))
        return {context.service.name: reason for context, reason in zip(self.contexts, found, strict=True) if reason}

    def _render_openapi(self) -> bytes:
        if not self._openapi:
            self._openapi = json.dumps(merge_openapi({name: app.openapi() for name, app in self.apps.items()})).encode()
        return self._openapi

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            for app in self.apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def merge_openapi(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One OpenAPI 3.1 document of all services. A schema name that two services use differently gets its service's name."""
    schemas: dict[str, Any] = {}
    merged: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Stockade", "version": __version__},
        "paths": {},
        "components": {"schemas": schemas, "securitySchemes": {}},
    }
    for service, document in documents.items():
        components = document.get("components", {})
        own: Mapping[str, Any] = components.get("schemas", {})
        prefix = "".join(part.capitalize() for part in service.removesuffix("-service").split("-"))
        renamed = {name: prefix + name for name, schema in own.items() if schemas.get(name, schema) != schema}
        schemas.update({renamed.get(name, name): _rename(schema, renamed) for name, schema in own.items()})
        merged["paths"].update(_rename(document["paths"], renamed))
        merged["components"]["securitySchemes"].update(components.get("securitySchemes", {}))
    return merged


def _rename(node: Any, renamed: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        return {
            key: _rename_reference(value, renamed) if key == "$ref" else _rename(value, renamed)
            for key, value in members.items()
        }
    if isinstance(node, list):
        return [_rename(value, renamed) for value in cast("list[Any]", node)]
    return node


def _rename_reference(reference: str, renamed: Mapping[str, str]) -> str:
    start, _, name = reference.rpartition("/")
    return f"{start}/{renamed.get(name, name)}"


def _first_name(path: str) -> str:
    if path.startswith("/api/v1/"):
        return path[8:].partition("/")[0]
    return _ROOT_JWKS if path == "/.well-known/jwks.json" else ""


async def _reply(send: Send, status: int, document: Mapping[str, Any]) -> None:
    await _send(send, status, json.dumps(document).encode(), "application/json")


async def _send(send: Send, status: int, body: bytes, media_type: str) -> None:
    headers: Iterable[tuple[bytes, bytes]] = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
