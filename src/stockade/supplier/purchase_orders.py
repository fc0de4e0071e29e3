"""Purchase orders: drafted, approved, sent, and closed or cancelled. What arrives is the business of `receipts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, Row
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.kit.events import Event, publish
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.supplier.shapes import (
    NewOrderLine,
    NewPurchaseOrder,
    OrderLine,
    OrderStatus,
    PurchaseOrder,
    PurchaseOrderHeader,
)

Step = Literal["submit", "approve", "reject", "send", "cancel", "close"]


@dataclass(frozen=True)
class Transition:
    to: OrderStatus
    sources: frozenset[OrderStatus]


TRANSITIONS: Mapping[Step, Transition] = {
    "submit": Transition("pending_approval", frozenset(("draft",))),
    "approve": Transition("approved", frozenset(("draft", "pending_approval"))),
    "reject": Transition("rejected", frozenset(("pending_approval",))),
    "send": Transition("sent", frozenset(("approved",))),
    "cancel": Transition("cancelled", frozenset(("draft", "pending_approval", "approved", "sent"))),
    "close": Transition("closed", frozenset(("sent", "partially_received", "received"))),
}
RECEIVABLE: frozenset[OrderStatus] = frozenset(("sent", "partially_received"))

_EVENTS: Mapping[Step, str] = {"approve": "purchase_order.approved", "send": "purchase_order.sent"}
_NEWEST = UUID(int=2**128 - 1)


async def create_order(connection: Connection, *, actor: Actor, new: NewPurchaseOrder) -> PurchaseOrder:
    """A draft. Lines without a price get the one of the supplier's item, and all of them the supplier's tolerance.

    Raises Invalid `unknown_supplier`.
    """
    supplier = await connection.fetchrow(
        "SELECT id, over_receipt_tolerance FROM suppliers WHERE code = $1 FOR KEY SHARE", new.supplier
    )
    if supplier is None:
        raise Invalid.field("/supplier", "unknown_supplier", f"There is no supplier with the code {new.supplier}.")
    order_id = uuid7()
    await connection.execute(
        """
        INSERT INTO purchase_orders (id, supplier_id, warehouse, reference, expected_on, created_by)
        VALUES ($1, $2, $3, $4, $5, $6)
        """,
        order_id, supplier["id"], new.warehouse, new.reference, new.expected_on, actor.responsible,
    )  # fmt: skip
    await _insert_lines(connection, order_id, supplier, new.lines)
    return await get_order(connection, order_id=order_id)


async def get_order(connection: Connection, *, order_id: UUID) -> PurchaseOrder:
    # One statement is one snapshot, so the status always fits what the lines say.
    rows = await connection.fetch(
        """
        SELECT o.id, o.number, o.status, s.code AS supplier, o.warehouse, o.reference, o.expected_on, o.created_by,
               o.created_at, o.approved_by, o.version,
               l.id AS line_id, l.line, l.sku, l.ordered, l.received, l.unit_cost
          FROM purchase_orders o
          JOIN suppliers s ON s.id = o.supplier_id
          JOIN purchase_order_lines l ON l.purchase_order_id = o.id
         WHERE o.id = $1
         ORDER BY l.line
        """,
        order_id,
    )
    if not rows:
        raise _not_found()
    lines = [
        OrderLine(
            id=row["line_id"], line=row["line"], sku=row["sku"], ordered=row["ordered"], received=row["received"],
            unit_cost=row["unit_cost"],
        )
        for row in rows
    ]  # fmt: skip
    return PurchaseOrder(**_header(rows[0]).model_dump(), lines=lines)


async def list_orders(
    connection: Connection, *, status: OrderStatus | None, supplier: str | None, limit: int, cursor: str | None
) -> Page[PurchaseOrderHeader]:
    """The newest first, without their lines."""
    (before,) = decode_cursor(cursor, UUID) or (_NEWEST,)
    rows = await connection.fetch(
        """
        SELECT o.id, o.number, o.status, s.code AS supplier, o.warehouse, o.reference, o.expected_on, o.created_by,
               o.created_at, o.approved_by, o.version
          FROM purchase_orders o
          JOIN suppliers s ON s.id = o.supplier_id
         WHERE o.id < $1 AND ($2::text IS NULL OR o.status = $2) AND ($3::text IS NULL OR s.code = $3)
         ORDER BY o.id DESC LIMIT $4
        """,
        before, status, supplier, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    return Page(items=[_header(row) for row in page], next=following)


async def change_status(connection: Connection, *, actor: Actor, order_id: UUID, step: Step) -> PurchaseOrder:
    """Take one step of the order's life. An order that has taken it already is answered as it is.

    Sending fills in when the goods are expected, from the supplier's lead time. Raises Conflict `wrong_status`.
    """
    transition = TRANSITIONS[step]
    status = await lock_order(connection, order_id)
    if status != transition.to:
        if status not in transition.sources:
            raise wrong_status(status, f"it cannot {step} any more or yet")
        if step == "cancel":
            await _check_nothing_came(connection, order_id, status)
        await connection.execute(
            """
            UPDATE purchase_orders o
               SET status = $2, version = o.version + 1,
                   approved_by = CASE WHEN $2 = 'approved' THEN $3 ELSE o.approved_by END,
                   expected_on = CASE WHEN $2 = 'sent' THEN coalesce(o.expected_on, current_date + s.lead_time_days)
                                      ELSE o.expected_on END
              FROM suppliers s
             WHERE o.id = $1 AND s.id = o.supplier_id
            """,
            order_id, transition.to, actor.responsible,
        )  # fmt: skip
        await _publish_step(connection, order_id, step)
    return await get_order(connection, order_id=order_id)


async def lock_order(connection: Connection, order_id: UUID) -> OrderStatus:
    """The status of an order, which nobody changes until this transaction ends; its lines and receipts neither."""
    status = await connection.fetchval("SELECT status FROM purchase_orders WHERE id = $1 FOR UPDATE", order_id)
    if status is None:
        raise _not_found()
    return status


def wrong_status(status: str, why: str) -> Conflict:
    # The member cannot be called `status`, which in a problem document is the number of the HTTP status.
    return Conflict(f"The purchase order is {status}: {why}.", code="wrong_status", current_status=status)


async def _insert_lines(connection: Connection, order_id: UUID, supplier: Row, lines: Sequence[NewOrderLine]) -> None:
    await connection.execute(
        """
        INSERT INTO purchase_order_lines (id, purchase_order_id, line, sku, unit_cost, tolerance, ordered)
        SELECT given.id, $1, given.line, given.sku, coalesce(given.unit_cost, i.unit_cost), $3, given.quantity
          FROM unnest($4::uuid[], $5::text[], $6::numeric[], $7::numeric[])
               WITH ORDINALITY AS given (id, sku, quantity, unit_cost, line)
          LEFT JOIN supplier_items i ON i.supplier_id = $2 AND i.sku = given.sku
         ORDER BY given.line
        """,
        order_id,
        supplier["id"],
        supplier["over_receipt_tolerance"],
        [uuid7() for _ in lines],
        [line.sku for line in lines],
        [line.quantity for line in lines],
        [line.unit_cost for line in lines],
    )


async def _check_nothing_came(connection: Connection, order_id: UUID, status: str) -> None:
    came = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM purchase_order_lines WHERE purchase_order_id = $1 AND received + receiving > 0)",
        order_id,
    )
    if came:
        raise wrong_status(status, "goods are being received, so that it can only be closed")


async def _publish_step(connection: Connection, order_id: UUID, step: Step) -> None:
    if step in _EVENTS:
        order = await get_order(connection, order_id=order_id)
        data = order.model_dump(
            mode="json", include={"id", "number", "supplier", "warehouse", "expected_on", "version"}
        )
        await publish(connection, Event(_EVENTS[step], str(order_id), data))


def _header(row: Row) -> PurchaseOrderHeader:
    return PurchaseOrderHeader(**{name: row[name] for name in PurchaseOrderHeader.model_fields})


def _not_found() -> NotFound:
    return NotFound("There is no such purchase order.", code="purchase_order_not_found")
