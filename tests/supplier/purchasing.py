"""A small company that buys: products, a warehouse, a supplier, and orders as far along as a test wants them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from stockade.kit.auth import Actor
from stockade.kit.calls import Answer, Outgoing, Transport
from stockade.kit.idempotency import RequestKey, fingerprint_of
from stockade.kit.integrity import run_checks
from stockade.user.roles import permissions_of
from tests.world import Api, World

BUYER = Actor(id="a-buyer", kind="user", permissions=permissions_of(("manager",)))
SERVICE = "supplier-service"


async def found_company(world: World, *skus: str, tracking: str = "none", **supplier: Any) -> Api:
    """A warehouse MAIN, a supplier ACME, these products; returns a manager of the company."""
    manager = world.as_("manager", subject=BUYER.id)
    await manager.post("/warehouses", {"code": "MAIN", "name": "Main"})
    for sku in skus:
        await manager.post("/products", {"sku": sku, "name": sku, "unit": "each", "tracking": tracking})
    await manager.post("/suppliers", {"code": "ACME", "name": "Acme"} | supplier)
    return manager


def order_of(*lines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The body of a purchase order."""
    return {"supplier": "ACME", "warehouse": "MAIN", "lines": list(lines)} | fields


async def send_order(api: Api, *lines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A purchase order that was approved and sent."""
    order = await api.post("/purchase-orders", order_of(*lines, **fields))
    await api.post(f"/purchase-orders/{order['id']}/approve", expect=200)
    return await api.post(f"/purchase-orders/{order['id']}/send", expect=200)


def goods(order: dict[str, Any], *quantities: str | None, **fields: Any) -> dict[str, Any]:
    """The body of a receipt: for each line of the order in turn how much of it came."""
    lines = [
        {"line_id": line["id"], "quantity": quantity} | fields
        for line, quantity in zip(order["lines"], quantities, strict=False)
        if quantity is not None
    ]
    return {"lines": lines}


def key_of(order: dict[str, Any], body: dict[str, Any], key: str) -> RequestKey:
    """What the route makes of the header, so that a step called here and a request sent later are the same request."""
    path = f"/api/v1/purchase-orders/{order['id']}/receive"
    return RequestKey(key, fingerprint_of("POST", path, json.dumps(body).encode()))


async def count_stock(api: Api, sku: str) -> Decimal:
    """What is on hand of a SKU, everywhere."""
    levels = (await api.get("/stock", sku=sku))["items"]
    return sum((Decimal(level["on_hand"]) for level in levels), Decimal(0))


async def read_events(world: World) -> list[dict[str, Any]]:
    """What the supplier-service has told others, in order."""
    connection = await world.connect("supplier")
    try:
        rows = await connection.fetch("SELECT type, subject, data FROM outbox ORDER BY position")
    finally:
        await connection.close()
    return [dict(row) | {"data": json.loads(row["data"])} for row in rows]


async def find_violations(world: World) -> list[dict[str, Any]]:
    """What the supplier-service's self-audit finds wrong."""
    context = world.context(SERVICE)
    findings = await context.database.run(run_checks, checks=context.service.checks, service=SERVICE)
    return [finding for finding in findings if finding["violations"]]


async def let_time_pass(world: World) -> None:
    """End the lease of every attempt and the rest of every failed one."""
    connection = await world.connect("supplier")
    try:
        await connection.execute("UPDATE receipts SET next_attempt_at = now() WHERE status = 'posting'")
    finally:
        await connection.close()


async def wait_until(is_so: Callable[[], Awaitable[bool]], *, limit_s: float = 15) -> None:
    """Poll until something that happens in the background has happened."""
    async with asyncio.timeout(limit_s):
        while not await is_so():  # noqa: ASYNC110 - what it waits for is a row, which has no event to set
            await asyncio.sleep(0.05)


class Line:
    """The line to another service, which can be cut before or after a request went through."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.cut: str | None = None
        self.carried = 0

    async def send(self, request: Outgoing) -> Answer:
        if self.cut == "before":
            raise OSError("the line is cut")
        answer = await self.inner.send(request)
        self.carried += 1
        if self.cut == "after":
            raise OSError("the line was cut before the answer came")
        return answer

    async def close(self) -> None:
        await self.inner.close()


def watch_line(world: World, target: str) -> Line:
    """Let the calls of the supplier-service to the real target run over a line that can be cut."""
    client = world.context(SERVICE).clients[target]
    client._transport = line = Line(client._transport)
    return line
