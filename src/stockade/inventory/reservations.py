"""Reservations: held until they expire, confirmed, consumed in parts, or given back.

A reservation's rows are locked before any stock level, and levels in key order, so that no two verbs can wait for each
other in a circle. Whether a hold has expired is decided by the clock, not by when the sweeper came by.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from stockade.inventory.errors import InsufficientStock
from stockade.inventory.items import Place, find_places
from stockade.inventory.ledger import (
    ZERO,
    Key,
    Level,
    MovementHead,
    lock_levels,
    open_books,
    write_levels,
    write_movement,
)
from stockade.inventory.movements import plan_issue
from stockade.inventory.shapes import Consumed, ConsumedLine, Consumption, NewReservation, Reservation, ReservationLine
from stockade.inventory.warehouses import find_locations
from stockade.kit.auth import Actor
from stockade.kit.context import Context
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.kit.events import Event, publish
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.kit.shapes import plain

T = TypeVar("T")

SWEEP_BATCH = 200
_SWEEPS_MAX = 50
_DUE = """
    SELECT id FROM reservations WHERE status = 'held' AND expires_at <= clock_timestamp()
     ORDER BY expires_at, id LIMIT $1 FOR UPDATE"""
_DUE_AND_FREE = _DUE + " SKIP LOCKED"
_LAST = UUID(int=2**128 - 1)
_OPEN = ("held", "confirmed", "partially_consumed")


@dataclass
class _Line:
    """A line of a locked reservation."""

    number: int
    place: Place
    requested: Decimal
    quantity: Decimal
    consumed: Decimal
    released: Decimal

    @property
    def left(self) -> Decimal:
        return self.quantity - self.consumed - self.released


@dataclass
class _Held:
    """A locked reservation."""

    id: UUID
    reference: str | None
    status: str
    expires_at: datetime
    has_expired: bool
    lines: list[_Line]

    def shape(self) -> Reservation:
        return Reservation(
            id=self.id, reference=self.reference, status=self.status, expires_at=self.expires_at,
            lines=[
                ReservationLine(
                    line=line.number, sku=line.place.sku, warehouse=line.place.warehouse,
                    requested=line.requested, quantity=line.quantity, consumed=line.consumed,
                )
                for line in self.lines
            ],
        )  # fmt: skip


async def reserve(connection: Connection, *, actor: Actor, request: NewReservation) -> Reservation:
    """Hold stock. All lines are decided together; lines of the same item and warehouse count as one demand.

    Raises Conflict `insufficient_stock` with what is available, and then holds nothing.
    """
    lines = request.lines
    places = await find_places(connection, [line.sku for line in lines], [line.warehouse for line in lines])
    levels = await lock_levels(connection, places)
    granted = _decide(levels, places, [line.quantity for line in lines], partial=request.mode == "partial")
    await write_levels(connection, levels)
    expires_at = await connection.fetchval(
        "SELECT clock_timestamp() + $1::interval", timedelta(seconds=request.expires_in_s)
    )
    held = _Held(uuid7(), request.reference, "held", expires_at, False, [])
    held.lines = [
        _Line(number, place, line.quantity, quantity, ZERO, ZERO)
        for number, (place, line, quantity) in enumerate(zip(places, lines, granted, strict=True), start=1)
    ]
    await _insert(connection, held, actor)
    await publish(connection, _event("reservation.held", held, actor))
    return held.shape()


async def confirm(connection: Connection, *, actor: Actor, reservation_id: UUID) -> Reservation:
    """Turn a hold into an allocation, which does not expire. Confirming again answers the same."""
    held = await _lock(connection, reservation_id)
    if held.status in ("confirmed", "partially_consumed", "consumed"):
        return held.shape()
    if held.status == "expired" or held.has_expired:
        raise Conflict("The hold has expired; reserve again.", code="reservation_expired")
    if held.status == "released":
        raise Conflict("The reservation was released.", code="reservation_released")
    levels = await lock_levels(connection, (line.place for line in held.lines))
    for line in held.lines:
        level = levels[line.place.key]
        level.reserved -= line.left
        level.allocated += line.left
    await write_levels(connection, levels)
    await _set_status(connection, held, "confirmed")
    await publish(connection, _event("reservation.confirmed", held, actor))
    return held.shape()


async def release(connection: Connection, *, actor: Actor, reservation_id: UUID) -> Reservation:
    """Give back what is left. Releasing what has ended already answers its state."""
    held = await _lock(connection, reservation_id)
    if held.status in _OPEN:
        await _give_back(connection, held, "released" if held.status != "partially_consumed" else "consumed")
        await publish(connection, _event("reservation.released", held, actor))
    return held.shape()


async def consume(connection: Connection, *, actor: Actor, reservation_id: UUID, request: Consumption) -> Consumed:
    """Ship parts of a confirmed reservation: one issue movement, which takes the goods and their allocation together."""
    held = await _lock(connection, reservation_id)
    if held.status not in ("confirmed", "partially_consumed"):
        raise Conflict(
            f"Only a confirmed reservation can be consumed; this one is {held.status}.",
            code="not_confirmed",
            state=held.status,
        )
    wanted = _match(held, request.lines)
    books = await open_books(connection, [line.place for line, _ in wanted])
    customers = await find_locations(
        connection, warehouses=list({line.place.warehouse_id for line, _ in wanted}), codes=[]
    )
    for line, quantity in wanted:
        plan_issue(
            books, line.place, quantity, line=line.number, customer=customers[line.place.warehouse_id, "@customer"]
        )
        books.levels[line.place.key].allocated -= quantity
        line.consumed += quantity
    head = MovementHead("issue", actor, reference=request.reference or held.reference, reservation_id=held.id)
    movement_id = await write_movement(connection, books, head)
    await _write_lines(connection, held)
    await _set_status(connection, held, "partially_consumed" if any(line.left for line in held.lines) else "consumed")
    await publish(connection, _event("reservation.consumed", held, actor))
    return Consumed(movement_id=movement_id, reservation=held.shape())


async def sweep_expired(connection: Connection, *, patient: bool = False) -> int:
    """End a bounded batch of holds whose time is over; returns how many. Unless patient, leaves alone those somebody works on."""
    due = await connection.fetch(_DUE if patient else _DUE_AND_FREE, SWEEP_BATCH)
    if not due:
        return 0
    expired = await _read(connection, [row["id"] for row in due])
    levels = await lock_levels(connection, (line.place for held in expired for line in held.lines))
    for held in expired:
        for line in held.lines:
            levels[line.place.key].reserved -= line.left
            line.released += line.left
        held.status = "expired"
    await write_levels(connection, levels)
    await _write_all(connection, expired)
    await publish(connection, *(_event("reservation.expired", held, None) for held in expired))
    return len(expired)


async def after_sweeping(context: Context, work: Callable[[], Awaitable[T]]) -> T:
    """Run something that needs stock; if expired holds still counted when it was refused, end them and run it once more."""
    try:
        return await work()
    except InsufficientStock as refusal:
        if not await context.database.read(has_more_than_told, lines=refusal.data["lines"]):
            raise
    for _ in range(_SWEEPS_MAX):
        if await context.database.run(sweep_expired, patient=True) < SWEEP_BATCH:
            break
    return await work()


async def has_more_than_told(connection: Connection, *, lines: Sequence[Mapping[str, str]]) -> bool:
    """Whether more is available, expired holds not counted, than these lines of a refusal said."""
    return await connection.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM unnest($1::text[], $2::text[], $3::text[]::numeric[]) AS l (sku, warehouse, available)
              JOIN items i ON i.sku = l.sku
              JOIN warehouses w ON w.code = l.warehouse
              JOIN stock_levels s ON s.item_id = i.id AND s.warehouse_id = w.id
             WHERE l.available < s.sellable - s.reserved - s.allocated + (
                SELECT coalesce(sum(h.quantity), 0)
                  FROM reservations r JOIN reservation_lines h ON h.reservation_id = r.id
                 WHERE r.status = 'held' AND r.expires_at <= clock_timestamp()
                   AND h.item_id = s.item_id AND h.warehouse_id = s.warehouse_id))
        """,
        *([line[name] for line in lines] for name in ("sku", "warehouse", "available")),
    )


async def get_reservation(connection: Connection, *, reservation_id: UUID) -> Reservation:
    found = await _read(connection, [reservation_id])
    if not found:
        raise NotFound("There is no such reservation.", code="reservation_not_found")
    return found[0].shape()


async def list_reservations(
    connection: Connection, *, reference: str | None, status: str | None, limit: int, cursor: str | None
) -> Page[Reservation]:
    """The newest first."""
    (before,) = decode_cursor(cursor, UUID) or (_LAST,)
    rows = await connection.fetch(
        """
        SELECT id FROM reservations
         WHERE id < $1 AND ($2::text IS NULL OR reference = $2) AND ($3::text IS NULL OR status = $3)
         ORDER BY id DESC LIMIT $4
        """,
        before, reference, status, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    found = {held.id: held for held in await _read(connection, [row["id"] for row in page])}
    return Page(items=[found[row["id"]].shape() for row in page], next=following)


def _decide(
    levels: dict[Key, Level], places: Sequence[Place], wanted: Sequence[Decimal], *, partial: bool
) -> list[Decimal]:
    """What each line gets, added to the levels; decided on the sums, so that two lines cannot have the same unit."""
    demand: dict[Key, Decimal] = {}
    for place, quantity in zip(places, wanted, strict=True):
        demand[place.key] = demand.get(place.key, ZERO) + quantity
    short = {key: levels[key].available for key, quantity in demand.items() if quantity > levels[key].available}
    nothing_at_all = all(available <= 0 for available in short.values()) and len(short) == len(demand)
    if short and (not partial or nothing_at_all):
        names = {place.key: place for place in places}
        raise InsufficientStock(
            [
                {
                    "sku": names[key].sku,
                    "warehouse": names[key].warehouse,
                    "requested": demand[key],
                    "available": max(available, ZERO),
                }
                for key, available in short.items()
            ]
        )
    granted: list[Decimal] = []
    for place, quantity in zip(places, wanted, strict=True):
        level = levels[place.key]
        part = min(quantity, max(level.available, ZERO))
        level.reserved += part
        granted.append(part)
    return granted


def _match(held: _Held, lines: Sequence[ConsumedLine]) -> list[tuple[_Line, Decimal]]:
    by_number = {line.number: line for line in held.lines}
    wanted: dict[int, Decimal] = {}
    for place, asked in enumerate(lines):
        if asked.line not in by_number:
            raise Invalid.field(f"/lines/{place}/line", "unknown_line", f"The reservation has no line {asked.line}.")
        wanted[asked.line] = wanted.get(asked.line, ZERO) + asked.quantity
    over = [number for number, quantity in wanted.items() if quantity > by_number[number].left]
    if over:
        details = [
            {"line": number, "requested": plain(wanted[number]), "left": plain(by_number[number].left)}
            for number in over
        ]
        raise Conflict(
            f"Line {over[0]} has only {details[0]['left']} left to consume.", code="over_consumed", lines=details
        )
    return [(by_number[number], quantity) for number, quantity in sorted(wanted.items())]


async def _give_back(connection: Connection, held: _Held, status: str) -> None:
    levels = await lock_levels(connection, (line.place for line in held.lines))
    for line in held.lines:
        level = levels[line.place.key]
        if held.status == "held":
            level.reserved -= line.left
        else:
            level.allocated -= line.left
        line.released += line.left
    await write_levels(connection, levels)
    await _write_lines(connection, held)
    await _set_status(connection, held, status)


async def _insert(connection: Connection, held: _Held, actor: Actor) -> None:
    await connection.execute(
        "INSERT INTO reservations (id, reference, status, expires_at, actor) VALUES ($1, $2, $3, $4, $5)",
        held.id, held.reference, held.status, held.expires_at, actor.responsible,
    )  # fmt: skip
    await connection.execute(
        """
        INSERT INTO reservation_lines (reservation_id, line, item_id, warehouse_id, requested, quantity)
        SELECT $1, * FROM unnest($2::integer[], $3::uuid[], $4::uuid[], $5::numeric[], $6::numeric[])
        """,
        held.id,
        [line.number for line in held.lines],
        [line.place.item_id for line in held.lines],
        [line.place.warehouse_id for line in held.lines],
        [line.requested for line in held.lines],
        [line.quantity for line in held.lines],
    )


async def _lock(connection: Connection, reservation_id: UUID) -> _Held:
    if not await connection.fetchval("SELECT true FROM reservations WHERE id = $1 FOR UPDATE", reservation_id):
        raise NotFound("There is no such reservation.", code="reservation_not_found")
    return (await _read(connection, [reservation_id]))[0]


async def _read(connection: Connection, ids: Sequence[UUID]) -> list[_Held]:
    rows = await connection.fetch(
        """
        SELECT r.id, r.reference, r.status, r.expires_at, r.status = 'held' AND r.expires_at <= clock_timestamp() AS has_expired,
               l.line, l.item_id, i.sku, l.warehouse_id, w.code AS warehouse, l.requested, l.quantity, l.consumed, l.released
          FROM reservations r
          JOIN reservation_lines l ON l.reservation_id = r.id
          JOIN items i ON i.id = l.item_id
          JOIN warehouses w ON w.id = l.warehouse_id
         WHERE r.id = ANY ($1::uuid[])
         ORDER BY r.id, l.line
        """,
        list(ids),
    )
    found: dict[UUID, _Held] = {}
    for row in rows:
        held = found.setdefault(
            row["id"], _Held(row["id"], row["reference"], row["status"], row["expires_at"], row["has_expired"], [])
        )
        place = Place(row["item_id"], row["sku"], "", row["warehouse_id"], row["warehouse"])
        held.lines.append(
            _Line(row["line"], place, row["requested"], row["quantity"], row["consumed"], row["released"])
        )
    return list(found.values())


async def _set_status(connection: Connection, held: _Held, status: str) -> None:
    held.status = status
    await connection.execute("UPDATE reservations SET status = $2 WHERE id = $1", held.id, status)


async def _write_lines(connection: Connection, held: _Held) -> None:
    await _update_lines(connection, [held])


async def _write_all(connection: Connection, reservations: Sequence[_Held]) -> None:
    await connection.execute(
        """
        UPDATE reservations r SET status = n.status FROM unnest($1::uuid[], $2::text[]) AS n (id, status) WHERE r.id = n.id
        """,
        [held.id for held in reservations], [held.status for held in reservations],
    )  # fmt: skip
    await _update_lines(connection, reservations)


async def _update_lines(connection: Connection, reservations: Sequence[_Held]) -> None:
    lines = [(held.id, line) for held in reservations for line in held.lines]
    await connection.execute(
        """
        UPDATE reservation_lines l SET consumed = n.consumed, released = n.released
          FROM unnest($1::uuid[], $2::integer[], $3::numeric[], $4::numeric[]) AS n (reservation_id, line, consumed, released)
         WHERE l.reservation_id = n.reservation_id AND l.line = n.line
        """,
        [identifier for identifier, _ in lines], [line.number for _, line in lines],
        [line.consumed for _, line in lines], [line.released for _, line in lines],
    )  # fmt: skip


def _event(kind: str, held: _Held, actor: Actor | None) -> Event:
    data = {
        "id": str(held.id),
        "reference": held.reference,
        "status": held.status,
        "actor": actor.responsible if actor else "sweeper",
        "lines": [
            {
                "line": line.number,
                "sku": line.place.sku,
                "warehouse": line.place.warehouse,
                "quantity": plain(line.quantity),
                "consumed": plain(line.consumed),
                "released": plain(line.released),
            }
            for line in held.lines
        ],
    }
    return Event(kind, str(held.id), data)
