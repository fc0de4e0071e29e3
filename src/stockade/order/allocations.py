"""Allocations: one reservation of stock behind the lines of an order each, step by step in this service's tables.

Each verb that moves an allocation names the step and attempt where it was found, and does nothing when another driver
was faster; `allocation_saga` takes the steps.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.events import publish
from stockade.kit.idempotency import StoredAnswer, settle_key
from stockade.kit.ids import uuid7
from stockade.order.calls import Reservation
from stockade.order.lines import lock_order, no_such_order, read_lines, save_order, tell
from stockade.order.sagas import DEADLINE, GRACE
from stockade.order.shapes import Order, OrderLine

AllocationStep = Literal["hold", "confirm", "done", "undo", "release", "released"]


@dataclass(frozen=True)
class AskedLine:
    """Line `place` of the reservation, for line `line` of the order."""

    place: int
    line: int
    sku: str
    asked: Decimal


@dataclass(frozen=True)
class Allocation:
    """Where the saga is."""

    id: UUID
    order_id: UUID
    number: str
    warehouse: str
    is_first: bool
    mode: Literal["all", "partial"]
    step: AllocationStep
    attempt: int
    reservation_id: UUID | None
    asked_by: str
    is_late: bool
    lines: tuple[AskedLine, ...]


async def begin_allocation(connection: Connection, *, actor: Actor, order_id: UUID) -> Allocation | None:
    """Ask for everything that is back-ordered, or join who is asking already; None when nothing is."""
    if await lock_order(connection, order_id=order_id) is None:
        raise no_such_order()
    under_way = await connection.fetchval(
        "SELECT id FROM allocations WHERE order_id = $1 AND step IN ('hold', 'confirm', 'undo')", order_id
    )
    if under_way is not None:
        return await load_allocation(connection, allocation_id=under_way)
    allocation_id = uuid7()
    missing = [line for line in await read_lines(connection, order_id=order_id) if line.backordered]
    if not missing:
        return None
    await connection.execute(
        """
        WITH begun AS (
            INSERT INTO allocations (id, order_id, is_first, mode, asked_by, next_attempt_at, deadline)
            VALUES ($1, $2, false, 'partial', $3, now() + $4::text::interval, now() + $5::text::interval)
        )
        INSERT INTO allocation_lines (allocation_id, place, line, asked, quantity)
        SELECT $1, place, line, asked, asked FROM unnest($6::smallint[], $7::numeric[]) WITH ORDINALITY AS a (line, asked, place)
        """,
        allocation_id, order_id, actor.responsible, GRACE, DEADLINE,
        [line.line for line in missing], [line.backordered for line in missing],
    )  # fmt: skip
    return await load_allocation(connection, allocation_id=allocation_id)


async def load_allocation(connection: Connection, *, allocation_id: UUID) -> Allocation | None:
    row = await connection.fetchrow(
        """
        SELECT a.id, a.order_id, o.number, o.warehouse, a.is_first, a.mode, a.step, a.attempt, a.reservation_id, a.asked_by,
               a.deadline < now() AS is_late
          FROM allocations a JOIN orders o ON o.id = a.order_id WHERE a.id = $1
        """,
        allocation_id,
    )
    if row is None:
        return None
    lines = await connection.fetch(
        """
        SELECT a.place, a.line, l.sku, a.asked
          FROM allocation_lines a JOIN order_lines l ON l.order_id = $2 AND l.line = a.line
         WHERE a.allocation_id = $1 ORDER BY a.place
        """,
        allocation_id, row["order_id"],
    )  # fmt: skip
    if not lines:
        return None  # It was removed between the two statements.
    return Allocation(**row, lines=tuple(AskedLine(**line) for line in lines))


async def list_open_allocations(connection: Connection, *, order_id: UUID) -> list[UUID]:
    """The allocations of an order that are at no end."""
    rows = await connection.fetch(
        "SELECT id FROM allocations WHERE order_id = $1 AND step IN ('hold', 'confirm', 'undo', 'release') ORDER BY id",
        order_id,
    )
    return [row["id"] for row in rows]


async def note_hold(connection: Connection, *, allocation: Allocation, reservation: Reservation) -> bool:
    """Write down what was granted; False when another driver has moved the saga on."""
    noted = await connection.fetchval(
        """
        UPDATE allocations SET step = CASE step WHEN 'hold' THEN 'confirm' ELSE step END, reservation_id = $4
         WHERE id = $1 AND step = $2 AND attempt = $3 AND reservation_id IS NULL RETURNING true
        """,
        allocation.id, allocation.step, allocation.attempt, reservation.id,
    )  # fmt: skip
    if not noted:
        return False
    fewer = [line for line in allocation.lines if reservation.granted[line.place] != line.asked]
    if fewer:
        await connection.execute(
            """
            UPDATE allocation_lines a SET quantity = granted.quantity
              FROM unnest($2::smallint[], $3::numeric[]) AS granted (place, quantity)
             WHERE a.allocation_id = $1 AND a.place = granted.place
            """,
            allocation.id, [line.place for line in fewer], [reservation.granted[line.place] for line in fewer],
        )  # fmt: skip
    return True


async def ask_again(connection: Connection, *, allocation: Allocation) -> bool:
    """Back to the hold; False when another driver has moved the saga on."""
    moved = await connection.fetchval(
        """
        UPDATE allocations SET step = 'hold', attempt = attempt + 1, reservation_id = NULL
         WHERE id = $1 AND step = 'confirm' AND attempt = $2 RETURNING true
        """,
        allocation.id, allocation.attempt,
    )  # fmt: skip
    if moved:
        await connection.execute(
            "UPDATE allocation_lines SET quantity = asked WHERE allocation_id = $1 AND quantity <> asked", allocation.id
        )
    return bool(moved)


async def finish_allocation(connection: Connection, *, allocation: Allocation) -> Order | None:
    """Give the lines what is confirmed, accept the order if it waits for that, and answer; None when another driver did."""
    # One statement for four: each step of it needs the rows of the one before, so the order is locked first here, too.
    rows = await connection.fetch(
        """
        WITH locked AS (
            SELECT id FROM orders WHERE id = $3 FOR UPDATE
        ), done AS (
            UPDATE allocations a SET step = 'done' FROM locked
             WHERE a.id = $1 AND a.order_id = locked.id AND a.step = 'confirm' AND a.attempt = $2 RETURNING a.id
        )
        UPDATE order_lines l SET allocated = l.allocated + p.quantity, backordered = l.backordered - p.quantity
          FROM done JOIN allocation_lines p ON p.allocation_id = done.id
         WHERE l.order_id = $3 AND l.line = p.line
        RETURNING l.line, sku, ordered, allocated, backordered, shipped, cancelled, returned, unit_price
        """,
        allocation.id, allocation.attempt, allocation.order_id,
    )  # fmt: skip
    if not rows:
        return None
    # The first allocation is about every line, so there is nothing to read again.
    lines = sorted((OrderLine(**row) for row in rows), key=lambda line: line.line) if allocation.is_first else None
    order = await save_order(connection, order_id=allocation.order_id, lines=lines)
    kinds = ("order.placed", "order.allocated") if allocation.is_first else ("order.allocated",)
    await publish(connection, *(tell(kind, order) for kind in kinds))
    await _settle(connection, allocation, order)
    return order


async def finish_without_stock(connection: Connection, *, allocation: Allocation) -> Order | None:
    """Nothing at all was there: everything stays back-ordered; None when another driver moved the saga on."""
    locked = await lock_order(connection, order_id=allocation.order_id, is_placing=True)
    if locked is None or not await _delete(connection, allocation):
        return None
    order = await save_order(connection, order_id=allocation.order_id)
    if allocation.is_first:
        await publish(connection, tell("order.placed", order))
    await _settle(connection, allocation, order)
    return order


async def forget_allocation(connection: Connection, *, allocation: Allocation) -> bool:
    """Remove what got nothing, with the order that was to be placed by it; False when another driver moved the saga on."""
    locked = await lock_order(connection, order_id=allocation.order_id, is_placing=True)
    if locked is None or not await _delete(connection, allocation):
        return False
    if allocation.is_first:
        await connection.execute("DELETE FROM orders WHERE id = $1 AND status = 'placing'", allocation.order_id)
        await settle_key(connection, resource_id=allocation.id, answer=None)
    return True


async def move_allocation(connection: Connection, *, allocation: Allocation, step: AllocationStep) -> bool:
    """To another step; False when another driver has moved the saga on."""
    return bool(
        await connection.fetchval(
            "UPDATE allocations SET step = $4 WHERE id = $1 AND step = $2 AND attempt = $3 RETURNING true",
            allocation.id,
            allocation.step,
            allocation.attempt,
            step,
        )
    )


async def _delete(connection: Connection, allocation: Allocation) -> bool:
    return bool(
        await connection.fetchval(
            "DELETE FROM allocations WHERE id = $1 AND step = $2 AND attempt = $3 RETURNING true",
            allocation.id,
            allocation.step,
            allocation.attempt,
        )
    )


async def _settle(connection: Connection, allocation: Allocation, order: Order) -> None:
    if allocation.is_first:
        await settle_key(connection, resource_id=allocation.id, answer=StoredAnswer(201, order.model_dump_json()))
