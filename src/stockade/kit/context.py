"""What a service is, and what its routes and verbs find around them while it runs."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from stockade.kit.auth import TokenVerifier
from stockade.kit.background import Background
from stockade.kit.calls import ServiceClient
from stockade.kit.database import Database
from stockade.kit.integrity import Check
from stockade.kit.settings import Settings


class Lifecycle:
    """Whether the process is on its way out: set once, by the first stop signal; streams and long polls end then."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()

    @property
    def draining(self) -> bool:
        return self.stopping.is_set()


@dataclass
class Context:
    """One running service. `clients` are the services that it may call, by name."""

    service: "Service"
    settings: Settings
    database: Database
    clients: Mapping[str, ServiceClient]
    verifier: TokenVerifier
    lifecycle: Lifecycle
    background: Background


@dataclass(frozen=True)
class Service:
    """A row of the table of services: one name all the way down, the names it owns under /api/v1, its routes."""

    name: str
    """Such as `product-catalog-service`: Deployment, DNS name, command-line target, metric label, log field."""
    package: str
    """The Python package, such as `stockade.product_catalog`."""
    owns: tuple[str, ...]
    """Top-level names under /api/v1."""
    routers: tuple[APIRouter, ...]
    prepare: Callable[[Context], None] = field(default=lambda _: None)
    """Plans background work and checks the settings before the first request."""
    checks: tuple[Check, ...] = ()
    """The invariants that this service can prove from its own tables."""

    @property
    def schema(self) -> str:
        return self.package.rpartition(".")[2]


async def get_context(request: Request) -> Context:  # Async, because the framework runs others in a thread.
    return request.app.state.context


Ctx = Annotated[Context, Depends(get_context)]
