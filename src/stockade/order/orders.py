"""Sales orders: placed, listed, cancelled."""

from uuid import UUID

from fastapi import Response

from stockade.kit.auth import Actor
from stockade.kit.context import Context
from stockade.kit.database import Connection, RetryTransaction
from stockade.kit.errors import Conflict
from stockade.kit.events import publish
from stockade.kit.idempotency import RequestKey, StoredAnswer, answer_once, find_answer, respond, settle_key
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.order import allocation_saga
from stockade.order.allocations import Allocation, AskedLine, list_open_allocations, load_allocation
from stockade.order.calls import check_products
from stockade.order.customers import find_customer
from stockade.order.lines import get_order, lock_order, no_such_order, save_order, tell
from stockade.order.metrics import ORDERS
from stockade.order.recovery import finish_saga
from stockade.order.sagas import DEADLINE, GRACE, Begun, answer_saga, claim
from stockade.order.shapes import NewOrder, Order, OrderStatus, OrderSummary
from stockade.order.sourcing import choose_warehouse

_LAST = UUID(int=2**128 - 1)


async def place_order(context: Context, *, actor: Actor, key: RequestKey, order: NewOrder) -> Response:
    """Place an order and allocate what it asks for; 201 with the order, the same for every repetition of the key.

    Raises Conflict `insufficient_stock` (of an order that is to be allocated whole; nothing of it remains), Invalid for a
    SKU, warehouse or customer that does not exist, and Unavailable when it goes on in the background.
    """
    warehouse = order.warehouse
    if warehouse is None or order.allocate == "none":
        # These ask other services before anything is written, which a repetition must not depend on.
        known = await context.database.read(find_answer, key, actor=actor)
        if known is not None:
            return respond(known, replayed=True)
        warehouse = warehouse or await choose_warehouse(context, order.lines)
    if order.allocate == "none":
        await check_products(context.clients["product-catalog-service"], [line.sku for line in order.lines])

    async def begin() -> Begun[Allocation]:
        begun = await context.database.run(begin_order, actor=actor, key=key, order=order, warehouse=warehouse)
        if begun.is_new and begun.answer is not None:
            ORDERS.labels("confirmed").inc()
        return begun

    return await answer_saga(context, key, actor=actor, begin=begin, take_step=allocation_saga.take_step)


async def cancel(context: Context, *, actor: Actor, key: RequestKey | None, order_id: UUID) -> Response:
    """Cancel what is not shipped; 200 with the order. Its reservations are given back now or, at the latest, in the background."""
    answer = await answer_once(context.database, key, cancel_order, actor=actor, status=200, order_id=order_id)
    for allocation_id in await context.database.read(list_open_allocations, order_id=order_id):
        await finish_saga(context, allocation_id, allocation_saga.advance)
    return answer


async def allocate_back_orders(context: Context, *, actor: Actor, key: RequestKey | None, order_id: UUID) -> Response:
    """Try to allocate what is back-ordered; 200 with the order as it is then."""
    known = key and await context.database.read(find_answer, key, actor=actor)
    if known:
        return respond(known, replayed=True)
    await allocation_saga.allocate(context, actor=actor, order_id=order_id)
    return await answer_once(context.database, key, show_order, actor=actor, status=200, order_id=order_id)


async def begin_order(
    connection: Connection, *, actor: Actor, key: RequestKey, order: NewOrder, warehouse: str
) -> Begun[Allocation]:
    """Write an order that waits for its allocation, or one that is accepted as it is; or join what this key began."""
    order_id = uuid7()
    allocation_id, is_new, answer = await claim(connection, key, actor=actor, resource_id=uuid7())
    if answer is not None:
        return Begun(is_new=False, answer=answer)
    if not is_new:
        allocation = await load_allocation(connection, allocation_id=allocation_id)
        if allocation is None:
            raise RetryTransaction  # It ended since the key was read.
        return Begun(is_new=False, state=allocation)
    number = await _insert_order(
        connection, actor=actor, order_id=order_id, allocation_id=allocation_id, order=order, warehouse=warehouse
    )
    if order.allocate == "none":
        placed = await get_order(connection, order_id=order_id)
        await publish(connection, tell("order.placed", placed))
        answer = StoredAnswer(201, placed.model_dump_json())
        await settle_key(connection, resource_id=allocation_id, answer=answer)
        return Begun(is_new=True, answer=answer)
    lines = [AskedLine(place, place, line.sku, line.quantity) for place, line in enumerate(order.lines, start=1)]
    state = Allocation(
        id=allocation_id, order_id=order_id, number=number, warehouse=warehouse, is_first=True, mode=order.allocate,
        step="hold", attempt=1, reservation_id=None, asked_by=actor.responsible, is_late=False, lines=tuple(lines),
    )  # fmt: skip
    return Begun(is_new=True, state=state)


async def list_orders(
    connection: Connection, *, limit: int, cursor: str | None, status: OrderStatus | None, customer: str | None
) -> Page[OrderSummary]:
    """Accepted orders, the newest first, without their lines."""
    (before,) = decode_cursor(cursor, UUID) or (_LAST,)
    rows = await connection.fetch(
        """
        SELECT o.id, o.number, o.status, o.warehouse, c.code AS customer, o.reference, o.priority, o.created_at, o.version
          FROM orders o LEFT JOIN customers c ON c.id = o.customer_id
         WHERE o.id < $1 AND o.status <> 'placing' AND ($2::text IS NULL OR o.status = $2)
           AND ($3::text IS NULL OR o.customer_id = (SELECT id FROM customers WHERE code = $3))
         ORDER BY o.id DESC LIMIT $4
        """,
        before, status, customer, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    return Page(items=[OrderSummary(**row) for row in page], next=following)


async def show_order(connection: Connection, *, actor: Actor, order_id: UUID) -> Order:
    """The order, as the answer of a request that changed it step by step."""
    del actor  # answer_once gives it to every verb.
    return await get_order(connection, order_id=order_id)


async def cancel_order(connection: Connection, *, actor: Actor, order_id: UUID) -> Order:
    """Cancel what is not shipped, and let its reservations be given back; again, it changes nothing.

    Raises NotFound, Conflict `shipment_under_way`, or Conflict `nothing_to_cancel` when everything was shipped.
    """
    if await lock_order(connection, order_id=order_id) is None:
        raise no_such_order()
    if await connection.fetchval(
        "SELECT EXISTS (SELECT FROM shipments WHERE order_id = $1 AND status = 'posting')", order_id
    ):
        raise Conflict("A shipment of this order is being posted; cancel after it.", code="shipment_under_way")
    changed = await connection.fetch(
        """
        UPDATE order_lines SET cancelled = cancelled + allocated + backordered, allocated = 0, backordered = 0
         WHERE order_id = $1 AND allocated + backordered > 0 RETURNING line
        """,
        order_id,
    )
    if not changed:
        return await _get_cancelled(connection, order_id=order_id)
    await connection.execute(
        """
        UPDATE allocations a
           SET step = CASE step WHEN 'done' THEN 'release' ELSE 'undo' END, asked_by = $2, tries = 0,
               next_attempt_at = now() + $3::text::interval, deadline = now() + $4::text::interval
         WHERE order_id = $1 AND (step IN ('hold', 'confirm') OR step = 'done' AND EXISTS (
                   SELECT FROM allocation_lines l WHERE l.allocation_id = a.id AND l.taken < l.quantity))
        """,
        order_id, actor.responsible, GRACE, DEADLINE,
    )  # fmt: skip
    order = await save_order(connection, order_id=order_id)
    await publish(connection, tell("order.cancelled", order))
    # A transaction that runs again counts again; a rate of orders can bear that.
    ORDERS.labels(order.status).inc()
    return order


async def _get_cancelled(connection: Connection, *, order_id: UUID) -> Order:
    order = await get_order(connection, order_id=order_id)
    if not any(line.cancelled for line in order.lines):
        raise Conflict("Everything was shipped; take it back with a return.", code="nothing_to_cancel")
    return order


async def _insert_order(
    connection: Connection, *, actor: Actor, order_id: UUID, allocation_id: UUID, order: NewOrder, warehouse: str
) -> str:
    """Write the order, its lines and, unless it is to wait, its first allocation; the order's number."""
    customer_id = await find_customer(connection, code=order.customer) if order.customer else None
    return await connection.fetchval(
        """
        WITH placed AS (
            INSERT INTO orders (id, customer_id, reference, priority, warehouse, placed_by, status)
            VALUES ($1, $2, $3, $4, $5, $6, CASE $7 WHEN 'none' THEN 'confirmed' ELSE 'placing' END) RETURNING number
        ), asked AS (
            SELECT sku, quantity, unit_price, line
              FROM unnest($8::text[], $9::numeric[], $10::numeric[]) WITH ORDINALITY AS l (sku, quantity, unit_price, line)
        ), lines AS (
            INSERT INTO order_lines (order_id, line, sku, ordered, backordered, unit_price)
            SELECT $1, line, sku, quantity, quantity, unit_price FROM asked
        ), begun AS (
            INSERT INTO allocations (id, order_id, is_first, mode, asked_by, next_attempt_at, deadline)
            SELECT $11, $1, true, $7, $6, now() + $12::text::interval, now() + $13::text::interval WHERE $7 <> 'none'
        ), parts AS (
            INSERT INTO allocation_lines (allocation_id, place, line, asked, quantity)
            SELECT $11, line, line, quantity, quantity FROM asked WHERE $7 <> 'none'
        )
        SELECT number FROM placed
        """,
        order_id, customer_id, order.reference, order.priority, warehouse, actor.responsible, order.allocate,
        [line.sku for line in order.lines], [line.quantity for line in order.lines], [line.unit_price for line in order.lines],
        allocation_id, GRACE, DEADLINE,
    )  # fmt: skip
