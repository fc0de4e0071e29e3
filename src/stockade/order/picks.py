"""Picks: out of which reservations of an order a shipment takes its quantities, the oldest reservation first."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from stockade.kit.database import Connection, Row
from stockade.kit.errors import Conflict, Invalid
from stockade.kit.shapes import plain
from stockade.order.lines import lock_order, no_such_order, read_lines
from stockade.order.shapes import LineQuantity


@dataclass(frozen=True)
class Pick:
    """A quantity out of line `place` of a reservation, for line `line` of the order."""

    allocation_id: UUID
    place: int
    line: int
    quantity: Decimal


async def choose_picks(connection: Connection, *, order_id: UUID, lines: Sequence[LineQuantity] | None) -> list[Pick]:
    """Lock the order and find where its lines, or everything allocated, can be taken from.

    Raises NotFound, Conflict `over_shipped` with what is allocated, Conflict `nothing_allocated`, Invalid `unknown_line`.
    """
    if await lock_order(connection, order_id=order_id) is None:
        raise no_such_order()
    known = {line.line for line in await read_lines(connection, order_id=order_id)}
    wanted = None if lines is None else _check_lines(lines, known)
    rows = await connection.fetch(
        """
        SELECT l.allocation_id, l.place, l.line, l.quantity - l.taken AS free
          FROM allocations a JOIN allocation_lines l ON l.allocation_id = a.id
         WHERE a.order_id = $1 AND a.step = 'done' AND l.quantity > l.taken
         ORDER BY l.allocation_id, l.place
        """,
        order_id,
    )
    free: dict[int, Decimal] = {}
    for row in rows:
        free[row["line"]] = free.get(row["line"], Decimal(0)) + row["free"]
    wanted = dict(free) if wanted is None else wanted
    if not wanted:
        raise Conflict("Nothing of this order is allocated that could be shipped.", code="nothing_allocated")
    short = [line for line, quantity in wanted.items() if quantity > free.get(line, 0)]
    if short:
        raise Conflict(
            "More is to be shipped than is allocated.",
            code="over_shipped",
            lines=[
                {"line": line, "requested": plain(wanted[line]), "allocated": plain(free.get(line, Decimal(0)))}
                for line in short
            ],
        )
    return _take(rows, wanted)


def _check_lines(lines: Sequence[LineQuantity], known: set[int]) -> dict[int, Decimal]:
    wanted: dict[int, Decimal] = {}
    for place, line in enumerate(lines):
        if line.line not in known:
            raise Invalid.field(f"/lines/{place}/line", "unknown_line", f"The order has no line {line.line}.")
        if line.line in wanted:
            raise Invalid.field(f"/lines/{place}/line", "duplicate_line", f"Line {line.line} is named twice.")
        wanted[line.line] = line.quantity
    return wanted


def _take(rows: Sequence[Row], wanted: dict[int, Decimal]) -> list[Pick]:
    picks: list[Pick] = []
    for row in rows:
        taken = min(row["free"], wanted.get(row["line"], Decimal(0)))
        if taken > 0:
            wanted[row["line"]] -= taken
            picks.append(Pick(row["allocation_id"], row["place"], row["line"], taken))
    return picks
