"""Shipments: what of an order leaves the warehouse, out of which of its reservations, in this service's tables.

Quantities under way are marked on the order line (`being_shipped`) and on the reservation's lines (`taken`) before anybody is
told, so that nothing can be shipped twice; they become `shipped` when the last movement is posted. `shipment_saga` takes
the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, RetryTransaction, Row
from stockade.kit.errors import NotFound
from stockade.kit.events import publish
from stockade.kit.idempotency import RequestKey, StoredAnswer, settle_key
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.order.lines import lock_order, save_order, tell
from stockade.order.picks import Pick, choose_picks
from stockade.order.sagas import DEADLINE, GRACE, Begun, claim
from stockade.order.shapes import LineQuantity, Order, Shipment, ShippedLine

_LAST = UUID(int=2**128 - 1)


@dataclass(frozen=True)
class Part:
    """What a shipment takes from one reservation: its lines and quantities."""

    allocation_id: UUID
    reservation_id: UUID
    lines: tuple[tuple[int, Decimal], ...]


@dataclass(frozen=True)
class Posting:
    """A shipment that is being posted, and the parts that no movement exists for yet."""

    id: UUID
    number: str
    order_id: UUID
    shipped_by: str
    parts: tuple[Part, ...]


async def begin_shipment(
    connection: Connection, *, actor: Actor, key: RequestKey, order_id: UUID, lines: Sequence[LineQuantity] | None
) -> Begun[Posting]:
    """Take what is to be shipped out of the order's reservations, the oldest first; or join what this key began.

    Raises NotFound, Conflict `over_shipped` with what is allocated, Conflict `nothing_allocated`, Invalid `unknown_line`.
    """
    shipment_id, is_new, answer = await claim(connection, key, actor=actor, resource_id=uuid7())
    if answer is not None:
        return Begun(is_new=False, answer=answer)
    if is_new:
        picks = await choose_picks(connection, order_id=order_id, lines=lines)
        await _insert_shipment(connection, actor=actor, shipment_id=shipment_id, order_id=order_id, picks=picks)
    posting = await load_posting(connection, shipment_id=shipment_id)
    if posting is None:
        raise RetryTransaction  # It ended since the key was read.
    return Begun(is_new=is_new, state=posting)


async def load_posting(connection: Connection, *, shipment_id: UUID) -> Posting | None:
    """A shipment that is not posted yet."""
    row = await connection.fetchrow(
        "SELECT id, number, order_id, shipped_by FROM shipments WHERE id = $1 AND status = 'posting'", shipment_id
    )
    if row is None:
        return None
    lines = await connection.fetch(
        """
        SELECT p.allocation_id, a.reservation_id, l.place, l.quantity
          FROM shipment_parts p
          JOIN allocations a ON a.id = p.allocation_id
          JOIN shipment_lines l ON l.shipment_id = p.shipment_id AND l.allocation_id = p.allocation_id
         WHERE p.shipment_id = $1 AND p.movement_id IS NULL AND NOT p.is_refused
         ORDER BY p.allocation_id, l.place
        """,
        shipment_id,
    )
    parts: dict[tuple[UUID, UUID], list[tuple[int, Decimal]]] = {}
    for line in lines:
        part = parts.setdefault((line["allocation_id"], line["reservation_id"]), [])
        part.append((line["place"], line["quantity"]))
    return Posting(**row, parts=tuple(Part(*ids, tuple(taken)) for ids, taken in parts.items()))


async def note_movement(
    connection: Connection, *, posting: Posting, part: Part, movement_id: UUID
) -> tuple[Order, Shipment] | None:
    """Write down the movement of a part; with the last part the shipment is posted and answered, else None."""
    if await lock_order(connection, order_id=posting.order_id) is None:
        return None
    await connection.execute(
        """
        UPDATE shipment_parts SET movement_id = $3
         WHERE shipment_id = $1 AND allocation_id = $2 AND movement_id IS NULL AND NOT is_refused
        """,
        posting.id, part.allocation_id, movement_id,
    )  # fmt: skip
    return await _post_if_complete(connection, posting=posting)


async def give_part_back(
    connection: Connection, *, posting: Posting, part: Part, is_lost: bool
) -> tuple[Order, Shipment] | None:
    """A part was refused: its quantities are allocated again, or back-ordered when the reservation is lost altogether.

    With the last part the shipment is posted without it, or removed when nothing of it was posted.
    """
    if await lock_order(connection, order_id=posting.order_id) is None:
        return None
    refused = await connection.fetchval(
        """
        UPDATE shipment_parts SET is_refused = true
         WHERE shipment_id = $1 AND allocation_id = $2 AND movement_id IS NULL AND NOT is_refused RETURNING true
        """,
        posting.id, part.allocation_id,
    )  # fmt: skip
    if refused:
        await _give_back(connection, posting=posting, part=part)
        if is_lost:
            await _back_order_the_rest(connection, allocation_id=part.allocation_id, order_id=posting.order_id)
    return await _post_if_complete(connection, posting=posting)


async def get_shipment(connection: Connection, *, shipment_id: UUID) -> Shipment:
    rows = await connection.fetch(
        "SELECT id, number, order_id, shipped_at FROM shipments WHERE id = $1 AND status = 'posted'", shipment_id
    )
    if not rows:
        raise NotFound("There is no such shipment.", code="shipment_not_found")
    return (await _complete(connection, rows))[0]


async def list_shipments(
    connection: Connection, *, limit: int, cursor: str | None, order_id: UUID | None
) -> Page[Shipment]:
    """Posted shipments, the newest first."""
    (before,) = decode_cursor(cursor, UUID) or (_LAST,)
    rows = await connection.fetch(
        """
        SELECT id, number, order_id, shipped_at FROM shipments
         WHERE id < $1 AND status = 'posted' AND ($2::uuid IS NULL OR order_id = $2) ORDER BY id DESC LIMIT $3
        """,
        before, order_id, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    return Page(items=await _complete(connection, page), next=following)


async def _insert_shipment(
    connection: Connection, *, actor: Actor, shipment_id: UUID, order_id: UUID, picks: Sequence[Pick]
) -> None:
    await connection.execute(
        """
        WITH picks AS (
            SELECT allocation_id, place, line, quantity
              FROM unnest($6::uuid[], $7::smallint[], $8::smallint[], $9::numeric[]) AS p (allocation_id, place, line, quantity)
        ), begun AS (
            INSERT INTO shipments (id, order_id, shipped_by, next_attempt_at, deadline)
            VALUES ($1, $2, $3, now() + $4::text::interval, now() + $5::text::interval)
        ), parts AS (
            INSERT INTO shipment_parts (shipment_id, allocation_id) SELECT DISTINCT $1::uuid, allocation_id FROM picks
        ), lines AS (
            INSERT INTO shipment_lines (shipment_id, allocation_id, place, line, quantity)
            SELECT $1, allocation_id, place, line, quantity FROM picks
        ), taken AS (
            UPDATE allocation_lines a SET taken = a.taken + p.quantity
              FROM picks p WHERE a.allocation_id = p.allocation_id AND a.place = p.place
        )
        UPDATE order_lines l SET being_shipped = l.being_shipped + p.quantity
          FROM (SELECT line, sum(quantity) AS quantity FROM picks GROUP BY line) p
         WHERE l.order_id = $2 AND l.line = p.line
        """,
        shipment_id, order_id, actor.responsible, GRACE, DEADLINE,
        [pick.allocation_id for pick in picks], [pick.place for pick in picks],
        [pick.line for pick in picks], [pick.quantity for pick in picks],
    )  # fmt: skip


async def _post_if_complete(connection: Connection, *, posting: Posting) -> tuple[Order, Shipment] | None:
    parts = await connection.fetch(
        """
        SELECT p.movement_id, p.is_refused
          FROM shipment_parts p JOIN shipments s ON s.id = p.shipment_id AND s.status = 'posting'
         WHERE p.shipment_id = $1
        """,
        posting.id,
    )
    if not parts or any(part["movement_id"] is None and not part["is_refused"] for part in parts):
        return None
    if all(part["is_refused"] for part in parts):
        await connection.execute("DELETE FROM shipments WHERE id = $1", posting.id)
        await settle_key(connection, resource_id=posting.id, answer=None)
        await save_order(connection, order_id=posting.order_id)
        return None
    rows = await connection.fetch(
        """
        UPDATE shipments SET status = 'posted', shipped_at = now() WHERE id = $1 RETURNING id, number, order_id, shipped_at
        """,
        posting.id,
    )
    await connection.execute(
        """
        UPDATE order_lines l
           SET allocated = l.allocated - s.quantity, being_shipped = l.being_shipped - s.quantity, shipped = l.shipped + s.quantity
          FROM (SELECT s.line, sum(s.quantity) AS quantity
                  FROM shipment_lines s
                  JOIN shipment_parts p ON p.shipment_id = s.shipment_id AND p.allocation_id = s.allocation_id
                 WHERE s.shipment_id = $1 AND NOT p.is_refused GROUP BY s.line) s
         WHERE l.order_id = $2 AND l.line = s.line
        """,
        posting.id, posting.order_id,
    )  # fmt: skip
    shipment = (await _complete(connection, rows))[0]
    order = await save_order(connection, order_id=posting.order_id)
    await publish(connection, tell("order.shipped", order, shipment=shipment.model_dump(mode="json")))
    await settle_key(connection, resource_id=posting.id, answer=StoredAnswer(201, shipment.model_dump_json()))
    return order, shipment


async def _give_back(connection: Connection, *, posting: Posting, part: Part) -> None:
    await connection.execute(
        """
        WITH back AS (
            SELECT place, line, quantity FROM shipment_lines WHERE shipment_id = $1 AND allocation_id = $2
        ), untaken AS (
            UPDATE allocation_lines a SET taken = a.taken - b.quantity
              FROM back b WHERE a.allocation_id = $2 AND a.place = b.place
        )
        UPDATE order_lines l SET being_shipped = l.being_shipped - b.quantity
          FROM (SELECT line, sum(quantity) AS quantity FROM back GROUP BY line) b
         WHERE l.order_id = $3 AND l.line = b.line
        """,
        posting.id, part.allocation_id, posting.order_id,
    )  # fmt: skip


async def _back_order_the_rest(connection: Connection, *, allocation_id: UUID, order_id: UUID) -> None:
    await connection.execute(
        """
        WITH lost AS (
            UPDATE allocations SET step = 'released' WHERE id = $1 AND step = 'done'
        ), rest AS (
            SELECT line, quantity - taken AS quantity FROM allocation_lines WHERE allocation_id = $1 AND quantity > taken
        ), cut AS (
            UPDATE allocation_lines SET quantity = taken WHERE allocation_id = $1 AND quantity > taken
        )
        UPDATE order_lines l SET allocated = l.allocated - r.quantity, backordered = l.backordered + r.quantity
          FROM rest r WHERE l.order_id = $2 AND l.line = r.line
        """,
        allocation_id, order_id,
    )  # fmt: skip


async def _complete(connection: Connection, shipments: Sequence[Row]) -> list[Shipment]:
    """Shipments with their movements and lines, read for all of them at once."""
    ids = [row["id"] for row in shipments]
    movements: dict[UUID, list[UUID]] = {}
    for row in await connection.fetch(
        """
        SELECT shipment_id, movement_id FROM shipment_parts
         WHERE shipment_id = ANY ($1::uuid[]) AND movement_id IS NOT NULL ORDER BY shipment_id, allocation_id
        """,
        ids,
    ):
        movements.setdefault(row["shipment_id"], []).append(row["movement_id"])
    lines: dict[UUID, list[ShippedLine]] = {}
    for row in await connection.fetch(
        """
        SELECT s.shipment_id, s.line, l.sku, sum(s.quantity) AS quantity
          FROM shipment_lines s
          JOIN shipment_parts p ON p.shipment_id = s.shipment_id AND p.allocation_id = s.allocation_id AND NOT p.is_refused
          JOIN shipments h ON h.id = s.shipment_id
          JOIN order_lines l ON l.order_id = h.order_id AND l.line = s.line
         WHERE s.shipment_id = ANY ($1::uuid[])
         GROUP BY s.shipment_id, s.line, l.sku ORDER BY s.shipment_id, s.line
        """,
        ids,
    ):
        line = ShippedLine(line=row["line"], sku=row["sku"], quantity=row["quantity"])
        lines.setdefault(row["shipment_id"], []).append(line)
    return [
        Shipment(
            **row,
            movement_id=movements[row["id"]][0],
            movement_ids=movements[row["id"]],
            lines=lines[row["id"]],
        )
        for row in shipments
    ]
