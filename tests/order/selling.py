"""A small shop for a test: products in the catalog, a warehouse, goods in it, and orders for them."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

from stockade.kit.context import Context
from tests.conftest import PASSWORDS
from tests.world import Api, World

OPEN_STEPS = ("hold", "confirm", "undo", "release")


async def open_shop(world: World, quantity: str = "10", *skus: str) -> Api:
    """A manager's client, with so much of each SKU (default A-1) in the warehouse MAIN; "0" leaves it empty."""
    api = world.as_("manager")
    await api.post("/warehouses", {"code": "MAIN", "name": "Main"})
    for sku in skus or ("A-1",):
        await api.post("/products", {"sku": sku, "name": sku, "unit": "each"})
        if quantity != "0":
            await receive(api, sku, quantity)
    return api


async def receive(api: Api, sku: str, quantity: str, warehouse: str = "MAIN") -> None:
    line = {"sku": sku, "warehouse": warehouse, "quantity": quantity}
    await api.post("/movements", {"type": "receipt", "lines": [line]})


def order_of(*lines: tuple[str, str], **more: Any) -> dict[str, Any]:
    """The body of an order for SKUs and quantities out of MAIN."""
    return {"warehouse": "MAIN", "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines], **more}


async def place(api: Api, *lines: tuple[str, str], expect: int = 201, key: str = "", **more: Any) -> Any:
    return await api.post("/orders", order_of(*lines, **more), expect=expect, key=key)


async def stock_of(api: Api, sku: str = "A-1", warehouse: str = "MAIN") -> tuple[str, str, str]:
    """What is on hand, promised (reserved or allocated) and available."""
    level = (await api.get("/stock", sku=sku, warehouse=warehouse))["items"][0]
    promised = int(level["reserved"]) + int(level["allocated"])
    return level["on_hand"], str(promised), level["available"]


def amounts(order: Any, line: int = 1) -> dict[str, str]:
    """What is not zero on a line of an order."""
    names = ("allocated", "backordered", "shipped", "cancelled", "returned")
    return {name: order["lines"][line - 1][name] for name in names if order["lines"][line - 1][name] != "0"}


def orders_context(world: World) -> Context:
    return world.context("order-service")


async def make_due(world: World) -> None:
    """Let the background driver take up every open saga now, as if its request had died long ago."""
    connection = await world.connect("order")
    try:
        for statement in ("UPDATE allocations SET", "UPDATE shipments SET", "UPDATE returns SET"):
            await connection.execute(f"{statement} next_attempt_at = now() - interval '1 second'")
    finally:
        await connection.close()


async def execute(world: World, schema: str, statement: str, *arguments: Any) -> None:
    """Change something behind the API, as time or an operator would."""
    connection = await world.connect_as_superuser(schema)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def fetch(world: World, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Rows of the order-service's own tables."""
    connection = await world.connect("order")
    try:
        return [tuple(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


async def only_allocation(world: World) -> UUID:
    ((found,),) = await fetch(world, "SELECT id FROM allocations")
    return found


@contextlib.asynccontextmanager
async def restarted(world: World) -> AsyncGenerator[World]:
    """All services once more, on the same database: the process after a crash, or a second one beside the first."""
    async with World.open(world.url, PASSWORDS, admin_url=world.admin_url) as other:
        yield other


async def check_integrity(world: World) -> None:
    """Every invariant of every service holds, and both sides tell the same of reservations."""
    report = await world.as_("auditor").get("/integrity")
    broken = [finding for finding in report["invariants"] if finding["violations"] != 0]
    assert not broken, broken
