"""The steps of a replay, in their order: products, stores, opening stock, baskets, returns, and the comparison.

Preparing steps must succeed: a refusal ends the replay. A basket that is refused is counted, and its rows reported.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from replay.baskets import Basket
from replay.books import Books, Place
from replay.client import Client, GaveUp, Refused
from replay.dataset import PRODUCTS_FILE, ProductRow
from replay.errors import Broken
from replay.plans import OpeningLine, ReturnLine, ShippedLine
from replay.products import code_of, describe_product, is_fuel
from replay.progress import Watch
from replay.rejections import Rejected

T = TypeVar("T")

PRODUCTS_PER_CALL = 1_000
LINES_PER_RECEIPT = 1_000
FAILURES_MAX = 20
"""How many baskets or returns may remain without an answer before the replay gives up."""

_BATCHES_AT_ONCE = 2


@dataclass(frozen=True)
class Run:
    """One replay: how it asks, how much at once, and what it writes down on the way."""

    id: str
    """Begins every Idempotency-Key, so that a later replay of the same baskets is another one."""
    client: Client
    watch: Watch
    concurrency: int
    books: Books = field(default_factory=Books)
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    refusals: Counter[str] = field(default_factory=Counter[str])
    """By request, status and code: `place order: 409 insufficient_stock`."""
    failures: list[str] = field(default_factory=list[str])
    """What was not answered, or with 5xx."""
    orders: Counter[str] = field(default_factory=Counter[str])
    """Baskets by what could be allocated: `complete`, `partial`, `nothing`; and those that were `refused`."""

    def key(self, what: str, *parts: object) -> str:
        return "-".join(map(str, (self.id, what, *parts)))


@dataclass(frozen=True, slots=True)
class Shipped:
    """A basket as an order of which something was shipped."""

    order_id: str
    basket: Basket
    lines: tuple[ShippedLine, ...]


async def load_products(run: Run, rows: Sequence[tuple[int, ProductRow]]) -> dict[int, bool]:
    """Make every product, by thousands. Of those that the catalogue took, whether their sales are measured by volume."""
    for department in sorted({row["department"] for _, row in rows if row["department"]}):
        await _make(run, "/categories", {"code": code_of(department), "name": department}, known_as="category_taken")
    fuels: dict[int, bool] = {}
    batches = [rows[start : start + PRODUCTS_PER_CALL] for start in range(0, len(rows), PRODUCTS_PER_CALL)]
    with run.watch.step("products", len(rows)) as advance:

        async def load(batch: Sequence[tuple[int, ProductRow]]) -> None:
            body = {"products": [describe_product(row) for _, row in batch]}
            answer = await run.client.post("/products/bulk", body, key=run.key("products", batch[0][0]))
            for (number, row), result in zip(batch, answer["results"], strict=True):
                if result["status"] in (200, 201):
                    fuels[row["product_id"]] = is_fuel(row)
                else:
                    reason = f"product_refused:{result['errors'][0]['code']}"
                    run.rejected.append(Rejected(PRODUCTS_FILE, number, reason, dict(row)))
            advance(len(batch))

        await do_each(batches, load, at_once=min(run.concurrency, _BATCHES_AT_ONCE))
    return fuels


async def open_stores(run: Run, stores: Sequence[str]) -> None:
    """Make a warehouse of every store; one that is there already will do."""
    with run.watch.step("stores", len(stores)) as advance:

        async def make(store: str) -> None:
            await _make(
                run, "/warehouses", {"code": store, "name": store.capitalize().replace("-", " ")}, known_as="code_taken"
            )
            advance(1)

        await do_each(stores, make, at_once=run.concurrency)


async def receive_opening(run: Run, lines: Iterable[OpeningLine]) -> None:
    """Receive what each store has at first, a receipt per store and thousand lines."""
    by_store = itertools.groupby((line for line in lines if line.quantity), key=lambda line: line.store)
    receipts: list[tuple[OpeningLine, ...]] = []
    for _, own in by_store:
        receipts += _split(own, LINES_PER_RECEIPT)
    with run.watch.step("opening stock", sum(map(len, receipts))) as advance:

        async def receive(receipt: tuple[OpeningLine, ...]) -> None:
            first = receipt[0]
            body = {
                "type": "receipt",
                "reason": "opening_stock",
                "reference": f"opening stock of {first.store}",
                "lines": [
                    {
                        "sku": line.sku,
                        "warehouse": line.store,
                        "quantity": str(line.quantity),
                        "unit_cost": str(line.unit_cost),
                    }
                    for line in receipt
                ],
            }
            await run.client.post("/movements", body, key=run.key("opening", first.store, first.sku))
            for line in receipt:
                run.books.opening.add((line.store, line.sku), line.quantity, line.unit_cost)
            advance(len(receipt))

        await do_each(receipts, receive, at_once=run.concurrency)


async def replay_baskets(run: Run, baskets: Sequence[Basket]) -> list[Shipped]:
    """Order every basket at its store and ship what could be allocated, in the order of time."""
    shipped: list[Shipped] = []
    with run.watch.step("baskets", len(baskets)) as advance:

        async def replay(basket: Basket) -> None:
            async def sell() -> None:
                if (order := await _place_order(run, basket)) and (shipment := await _ship(run, basket, order)):
                    shipped.append(shipment)

            if not await _survive(run, sell):
                run.rejected.extend(sale.reject("not_answered") for sale in basket.sales)
            advance(1)

        await do_each(baskets, replay, at_once=run.concurrency)
    return shipped


async def take_returns(run: Run, returns: Sequence[tuple[Shipped, Sequence[ReturnLine]]]) -> None:
    """Take back what was chosen, a return per order."""
    with run.watch.step("returns", len(returns)) as advance:

        async def take(one: tuple[Shipped, Sequence[ReturnLine]]) -> None:
            await _survive(run, lambda: _take_return(run, *one))
            advance(1)

        await do_each(returns, take, at_once=run.concurrency)


async def read_on_hand(run: Run, stores: Sequence[str], *, step: str) -> dict[Place, Decimal]:
    """What the stores have on hand of every SKU, whatever its status."""
    found: dict[Place, Decimal] = {}
    with run.watch.step(step, len(stores)) as advance:

        async def read(store: str) -> None:
            for level in await run.client.get_all("/stock", warehouse=store):
                found[store, level["sku"]] = Decimal(level["on_hand"])
            advance(1)

        await do_each(stores, read, at_once=run.concurrency)
    return found


async def read_existing_stores(run: Run, stores: Iterable[str]) -> list[str]:
    """Which of these stores are warehouses already, as on a server that has seen a replay before."""
    known = {warehouse["code"] for warehouse in await run.client.get_all("/warehouses")}
    return sorted(known & set(stores))


async def do_each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Work on the items in their order, at most so many at once. The first exception ends all of it, and is raised."""
    pending = iter(items)

    async def take_turns() -> None:
        for item in pending:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(take_turns())
    except* (Broken, Refused, GaveUp) as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def as_pieces(text: str) -> int:
    """A quantity of the API, of which the replay only ever moves whole pieces."""
    quantity = Decimal(text)
    if quantity != int(quantity):
        raise Broken(f"The server answered {text} where only whole pieces were ever moved.")
    return int(quantity)


async def _place_order(run: Run, basket: Basket) -> Mapping[str, Any] | None:
    """The order, in part when all of it cannot be had; None when there is nothing to ship."""
    body = {
        "warehouse": basket.store,
        "reference": str(basket.id),
        "lines": [
            {"sku": sale.sku, "quantity": str(sale.quantity), "unit_price": str(sale.unit_price)}
            for sale in basket.sales
        ],
    }
    order: Mapping[str, Any] | None = None
    for mode in ("all", "partial"):
        try:
            order = await run.client.post(
                "/orders", body | {"allocate": mode}, key=run.key(mode, basket.store, basket.id)
            )
            break
        except Refused as refused:
            run.refusals[f"place order ({mode}): {refused.status} {refused.code}"] += 1
            if refused.code != "insufficient_stock":
                run.rejected.extend(sale.reject(f"order_refused:{refused.code}") for sale in basket.sales)
                break
    if order is None:
        run.orders["refused"] += 1
        return None
    missing = any(as_pieces(line["backordered"]) for line in order["lines"])
    has_any = any(as_pieces(line["allocated"]) for line in order["lines"])
    run.orders["complete" if not missing else "partial" if has_any else "nothing"] += 1
    return order if has_any else None


async def _ship(run: Run, basket: Basket, order: Mapping[str, Any]) -> Shipped | None:
    try:
        shipment = await run.client.post(
            f"/orders/{order['id']}/ship", {}, key=run.key("ship", basket.store, basket.id)
        )
    except Refused as refused:
        run.refusals[f"ship: {refused.status} {refused.code}"] += 1
        return None
    lines: list[ShippedLine] = []
    for line in shipment["lines"]:
        sale = basket.sales[line["line"] - 1]
        lines.append(ShippedLine(line["line"], sale.sku, as_pieces(line["quantity"]), sale.unit_price))
        run.books.shipped.add((basket.store, sale.sku), lines[-1].quantity, sale.unit_price)
    return Shipped(order["id"], basket, tuple(lines))


async def _take_return(run: Run, shipped: Shipped, lines: Sequence[ReturnLine]) -> None:
    basket = shipped.basket
    body = {
        "order_id": shipped.order_id,
        "reason": "changed their mind",
        "lines": [
            {"line": line.line, "quantity": str(line.quantity), "disposition": line.disposition} for line in lines
        ],
    }
    try:
        answer = await run.client.post("/returns", body, key=run.key("return", basket.store, basket.id))
    except Refused as refused:
        run.refusals[f"return: {refused.status} {refused.code}"] += 1
        return
    for line in answer["lines"]:
        sale = basket.sales[line["line"] - 1]
        run.books.returned.add((basket.store, sale.sku), as_pieces(line["quantity"]), sale.unit_price)


async def _survive(run: Run, work: Callable[[], Awaitable[None]]) -> bool:
    """Whether it was answered in the end. Raises Broken when too much was not."""
    try:
        await work()
    except GaveUp as error:
        run.failures.append(str(error))
        if len(run.failures) >= FAILURES_MAX:
            raise Broken(f"Too much is not answered; the last: {error}") from error
        return False
    return True


async def _make(run: Run, path: str, body: Mapping[str, str], *, known_as: str) -> None:
    try:
        await run.client.post(path, body, key=run.key(path.strip("/"), body["code"]))
    except Refused as refused:
        if refused.code != known_as:
            raise


def _split(lines: Iterable[T], size: int) -> list[tuple[T, ...]]:
    pending = iter(lines)
    return list(iter(lambda: tuple(itertools.islice(pending, size)), ()))
