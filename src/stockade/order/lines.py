"""Orders and their lines in the database: read, locked, and saved with the status that follows from the lines.

Every verb that changes lines locks the order first, so that the lines, reservations, shipments and returns of an order
change one after the other, while orders never wait for each other.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from stockade.kit.database import Connection, Row
from stockade.kit.errors import NotFound
from stockade.kit.events import Event
from stockade.kit.shapes import plain
from stockade.order.shapes import Order, OrderLine, OrderStatus, OrderSummary


async def get_order(connection: Connection, *, order_id: UUID) -> Order:
    """An accepted order with its lines, of one moment."""
    rows = await connection.fetch(
        """
        SELECT o.id, o.number, o.status, o.warehouse, c.code AS customer, o.reference, o.priority, o.created_at, o.version,
               l.line, l.sku, l.ordered, l.allocated, l.backordered, l.shipped, l.cancelled, l.returned, l.unit_price
          FROM orders o
          LEFT JOIN customers c ON c.id = o.customer_id
          JOIN order_lines l ON l.order_id = o.id
         WHERE o.id = $1 AND o.status <> 'placing' ORDER BY l.line
        """,
        order_id,
    )
    if not rows:
        raise no_such_order()
    summary = {name: rows[0][name] for name in OrderSummary.model_fields}
    return Order(**summary, lines=[OrderLine(**{name: row[name] for name in OrderLine.model_fields}) for row in rows])


async def lock_order(connection: Connection, *, order_id: UUID, is_placing: bool = False) -> "Row | None":
    """Lock an order that is accepted, or with `is_placing` any: id, number, status, warehouse. None when there is none."""
    return await connection.fetchrow(
        "SELECT id, number, status, warehouse FROM orders WHERE id = $1 AND (status <> 'placing' OR $2) FOR UPDATE",
        order_id,
        is_placing,
    )


async def read_lines(connection: Connection, *, order_id: UUID) -> list[OrderLine]:
    rows = await connection.fetch(
        """
        SELECT line, sku, ordered, allocated, backordered, shipped, cancelled, returned, unit_price
          FROM order_lines WHERE order_id = $1 ORDER BY line
        """,
        order_id,
    )
    return [OrderLine(**row) for row in rows]


async def save_order(connection: Connection, *, order_id: UUID, lines: list[OrderLine] | None = None) -> Order:
    """Give a locked order the status of its present lines, and a new version."""
    lines = await read_lines(connection, order_id=order_id) if lines is None else lines
    row = await connection.fetchrow(
        """
        UPDATE orders SET status = $2, version = version + 1 WHERE id = $1
        RETURNING id, number, status, warehouse, (SELECT code FROM customers c WHERE c.id = customer_id) AS customer,
                  reference, priority, created_at, version
        """,
        order_id, derive_status(lines),
    )  # fmt: skip
    assert row is not None, "the order is locked"
    return Order(**row, lines=lines)


def derive_status(lines: Sequence[OrderLine]) -> OrderStatus:
    """The status of an order; nothing but its lines decides it."""
    is_open = any(line.allocated or line.backordered for line in lines)
    if any(line.returned for line in lines):
        return "partially_returned" if is_open or any(line.returned != line.shipped for line in lines) else "returned"
    if any(line.shipped for line in lines):
        return "partially_shipped" if is_open else "shipped"
    if not is_open:
        return "cancelled"
    if not any(line.backordered for line in lines):
        return "allocated"
    return "partially_allocated" if any(line.allocated for line in lines) else "confirmed"


def tell(kind: str, order: Order, **more: Any) -> Event:
    """The event of an order: who and where it is now, its lines in numbers, and what the kind of event adds."""
    lines = [
        {"line": line.line, "sku": line.sku}
        | {
            name: plain(getattr(line, name))
            for name in ("ordered", "allocated", "backordered", "shipped", "cancelled", "returned")
        }
        for line in order.lines
    ]
    about = order.model_dump(mode="json", include={"id", "number", "status", "warehouse", "customer", "version"})
    return Event(kind, str(order.id), about | {"lines": lines} | more)


def no_such_order() -> NotFound:
    return NotFound("There is no such order.", code="order_not_found")
