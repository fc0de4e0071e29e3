"""Movements: posted, reversed, read. Each type says where goods come from and where they go."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from uuid import UUID

from stockade.inventory.items import Place, find_places
from stockade.inventory.ledger import (
    NO_LOT,
    SELLABLE,
    Bin,
    Books,
    MovementHead,
    check_occurred_at,
    open_books,
    write_movement,
)
from stockade.inventory.shapes import Entry, Movement, NewMovement, NewMovementLine
from stockade.inventory.warehouses import DEFAULT_LOCATION, find_locations
from stockade.kit.auth import Actor
from stockade.kit.database import Connection, Row
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate

_CUSTOMER_RETURN = "customer_return"
_LAST = UUID(int=2**128 - 1)


class _Directory:
    """The names of a request, found: where each line is, and the ids of locations and lots."""

    def __init__(self, places: Sequence[Place], targets: Sequence[Place]) -> None:
        self.places = places
        self.targets = targets
        self.locations: dict[tuple[UUID, str], UUID] = {}
        self.lots: dict[tuple[UUID, str], tuple[UUID, date | None]] = {}

    def location(self, place: Place, code: str | None, pointer: str) -> UUID:
        found = self.locations.get((place.warehouse_id, code or DEFAULT_LOCATION))
        if found is None:
            raise Invalid.field(pointer, "unknown_location", f"There is no location {code} in {place.warehouse}.")
        return found

    def lot(self, place: Place, line: NewMovementLine, pointer: str) -> UUID:
        if line.lot is None:
            return NO_LOT
        found = self.lots.get((place.item_id, line.lot))
        if found is None:
            raise Invalid.field(pointer, "unknown_lot", f"There is no lot {line.lot} of {line.sku}.")
        return found[0]


async def post_movement(connection: Connection, *, actor: Actor, request: NewMovement) -> Movement:
    """Move goods. Raises Invalid for names that do not exist, Conflict `insufficient_stock` for goods that are not there."""
    if request.occurred_at is not None:
        check_occurred_at(request.occurred_at, await connection.fetchval("SELECT clock_timestamp()"))
    directory = await _look_up(connection, request)
    books = await open_books(connection, [*directory.places, *directory.targets])
    available = {key: level.available for key, level in books.levels.items()}
    for number, line in enumerate(request.lines, start=1):
        _plan(books, directory, request, number, line)
    books.check_promises(available)
    head = MovementHead(request.type, actor, request.reason, request.reference, request.occurred_at)
    return await get_movement(connection, movement_id=await write_movement(connection, books, head))


async def reverse_movement(connection: Connection, *, actor: Actor, movement_id: UUID) -> Movement:
    """Undo a movement exactly, entry by entry, as a new one. At most once; a reversal itself cannot be reversed."""
    kind = await connection.fetchval("SELECT type FROM movements WHERE id = $1", movement_id)
    if kind is None:
        raise NotFound("There is no such movement.", code="movement_not_found")
    if kind == "reversal":
        raise Conflict("A reversal cannot be reversed; post the movement anew.", code="is_reversal")
    rows = await _read_entries(connection, [movement_id])
    places = [Place(row["item_id"], row["sku"], "", row["warehouse_id"], row["warehouse"]) for row in rows]
    books = await open_books(connection, places)
    available = {key: level.available for key, level in books.levels.items()}
    # What comes back is planned first, so that a way through several places can be undone in one go.
    for place, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[1]["quantity"]):
        bin = Bin(row["location_id"], row["lot_id"], row["status"], row["is_physical"])
        books.add(row["line"], place, bin, -row["quantity"], unit_cost=row["unit_cost"])
    books.check_promises(available)
    identifier = await write_movement(connection, books, MovementHead("reversal", actor, reverses=movement_id))
    return await get_movement(connection, movement_id=identifier)


async def get_movement(connection: Connection, *, movement_id: UUID) -> Movement:
    row = await connection.fetchrow(
        "SELECT id, type, reason, reference, actor, occurred_at, recorded_at, reverses FROM movements WHERE id = $1",
        movement_id,
    )
    if row is None:
        raise NotFound("There is no such movement.", code="movement_not_found")
    return _movement(row, await _read_entries(connection, [movement_id]))


async def list_movements(
    connection: Connection, *, sku: str | None, reference: str | None, limit: int, cursor: str | None
) -> Page[Movement]:
    """The newest first, optionally of one SKU or one reference."""
    (before,) = decode_cursor(cursor, UUID) or (_LAST,)
    rows = await connection.fetch(
        """
        SELECT m.id, m.type, m.reason, m.reference, m.actor, m.occurred_at, m.recorded_at, m.reverses
          FROM movements m
         WHERE m.id < $1 AND ($2::text IS NULL OR m.reference = $2)
           AND ($3::text IS NULL OR EXISTS (
                SELECT FROM entries e JOIN items i ON i.id = e.item_id WHERE e.movement_id = m.id AND i.sku = $3))
         ORDER BY m.id DESC LIMIT $4
        """,
        before, reference, sku, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    entries = await _read_entries(connection, [row["id"] for row in page])
    items = [_movement(row, [entry for entry in entries if entry["movement_id"] == row["id"]]) for row in page]
    return Page(items=items, next=following)


async def _look_up(connection: Connection, request: NewMovement) -> _Directory:
    lines = request.lines
    places = await find_places(connection, [line.sku for line in lines], [line.warehouse for line in lines])
    targets = places
    if any(line.to_warehouse for line in lines):
        codes = [line.to_warehouse or line.warehouse for line in lines]
        targets = await find_places(connection, [line.sku for line in lines], codes, field="to_warehouse")
    directory = _Directory(places, targets)
    for number, (line, place) in enumerate(zip(lines, places, strict=True)):
        _check_tracking(place, line, number, comes_in=_comes_in(request.type, line))
    codes = [code for line in lines for code in (line.location, line.to_location) if code]
    warehouses = list({place.warehouse_id for place in (*places, *targets)})
    directory.locations = await find_locations(connection, warehouses=warehouses, codes=codes)
    with_lot = [(place, line) for line, place in zip(lines, places, strict=True) if line.lot]
    if with_lot:
        made = [(place, line) for place, line in with_lot if _comes_in(request.type, line)]
        directory.lots = await _find_lots(connection, with_lot, made)
    return directory


def _comes_in(kind: str, line: NewMovementLine) -> bool:
    return kind == "receipt" or (kind == "adjustment" and line.quantity > 0)


def _check_tracking(place: Place, line: NewMovementLine, number: int, *, comes_in: bool) -> None:
    pointer = f"/lines/{number}"
    if place.tracking == "serial" or line.serials:
        raise Invalid.field(
            f"{pointer}/serials", "serials_not_supported", "Movements of serial-numbered goods are not offered yet."
        )
    if line.lot and place.tracking != "lot":
        raise Invalid.field(f"{pointer}/lot", "lot_not_tracked", f"{line.sku} is not tracked by lot.")
    if comes_in and place.tracking == "lot" and not line.lot:
        raise Invalid.field(f"{pointer}/lot", "lot_required", f"{line.sku} is tracked by lot: say which one arrives.")


async def _find_lots(
    connection: Connection,
    lines: Sequence[tuple[Place, NewMovementLine]],
    made: Sequence[tuple[Place, NewMovementLine]],
) -> dict[tuple[UUID, str], tuple[UUID, date | None]]:
    """Ids and expiry dates of the lots of these lines; those of `made` come into being if they are new."""
    keys = sorted({(place.item_id, line.lot or "") for place, line in lines})
    if new := {(place.item_id, line.lot or ""): line.expires_on for place, line in made}:
        ordered = sorted(new)
        await connection.execute(
            """
            INSERT INTO lots (id, item_id, code, expires_on)
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::date[]) ON CONFLICT DO NOTHING
            """,
            [uuid7() for _ in ordered], [item for item, _ in ordered], [code for _, code in ordered],
            [new[key] for key in ordered],
        )  # fmt: skip
    rows = await connection.fetch(
        """
        SELECT l.id, l.item_id, l.code, l.expires_on
          FROM lots l JOIN unnest($1::uuid[], $2::text[]) AS k (item_id, code) USING (item_id, code)
        """,
        [item for item, _ in keys], [code for _, code in keys],
    )  # fmt: skip
    found = {(row["item_id"], row["code"]): (row["id"], row["expires_on"]) for row in rows}
    for number, (place, line) in enumerate(lines):
        known = found.get((place.item_id, line.lot or ""))
        if known and line.expires_on and known[1] != line.expires_on:
            detail = f"Lot {line.lot} of {line.sku} is known to expire on {known[1] or 'no date'}."
            raise Invalid.field(f"/lines/{number}/expires_on", "lot_expiry_differs", detail)
    return found


def _plan(books: Books, directory: _Directory, request: NewMovement, number: int, line: NewMovementLine) -> None:
    place, target = directory.places[number - 1], directory.targets[number - 1]
    status, pointer = line.status or SELLABLE, f"/lines/{number - 1}"
    lot = directory.lot(place, line, f"{pointer}/lot")

    def outside(kind: str) -> Bin:
        return Bin(directory.locations[place.warehouse_id, f"@{kind}"], lot, status, False)

    if _comes_in(request.type, line):
        source = (
            "adjustment"
            if request.type == "adjustment"
            else "customer"
            if request.reason == _CUSTOMER_RETURN
            else "supplier"
        )
        into = Bin(directory.location(place, line.location, f"{pointer}/location"), lot, status, True)
        books.add(number, place, outside(source), -line.quantity, unit_cost=line.unit_cost)
        books.add(number, place, into, line.quantity, unit_cost=line.unit_cost)
        return
    location = directory.location(place, line.location, f"{pointer}/location") if line.location else None
    # What is at the destination already need not go there; if the line says to take it from there, that is refused below.
    destination = None
    if request.type == "transfer" and location is None:
        destination = directory.location(target, line.to_location, f"{pointer}/to_location")
    taken = books.pick(
        place, abs(line.quantity), status=status, location_id=location, lot_id=lot if line.lot else None, beside=destination
    )  # fmt: skip
    for bin, quantity in taken:
        into = _destination(directory, request.type, line, place, target, bin, pointer)
        books.add(number, place, bin, -quantity)
        books.add(number, target if into.is_physical else place, into, quantity)


def _destination(
    directory: _Directory, kind: str, line: NewMovementLine, place: Place, target: Place, taken: Bin, pointer: str
) -> Bin:
    if kind == "transfer":
        location = directory.location(target, line.to_location, f"{pointer}/to_location")
        if location == taken.location_id:
            raise Invalid.field(f"{pointer}/to_location", "same_location", "The goods are there already.")
        return Bin(location, taken.lot_id, taken.status, True)
    if kind == "status_change":
        if line.to_status == taken.status:
            raise Invalid.field(f"{pointer}/to_status", "same_status", "The goods have this status already.")
        return Bin(taken.location_id, taken.lot_id, line.to_status or taken.status, True)
    kind = "customer" if kind == "issue" else "adjustment"
    return Bin(directory.locations[place.warehouse_id, f"@{kind}"], taken.lot_id, taken.status, False)


def plan_issue(books: Books, place: Place, quantity: Decimal, *, line: int, customer: UUID) -> None:
    """Plan the shipping of a reserved quantity to the customer."""
    for bin, part in books.pick(place, quantity, status=SELLABLE):
        books.add(line, place, bin, -part)
        books.add(line, place, Bin(customer, bin.lot_id, bin.status, False), part)


async def _read_entries(connection: Connection, movement_ids: Sequence[UUID]) -> list[Row]:
    return await connection.fetch(
        """
        SELECT e.movement_id, e.line, e.item_id, i.sku, e.warehouse_id, w.code AS warehouse, e.location_id, p.code AS location,
               e.lot_id, l.code AS lot, e.status, e.is_physical, e.quantity, e.balance, e.unit_cost
          FROM entries e
          JOIN items i ON i.id = e.item_id
          JOIN warehouses w ON w.id = e.warehouse_id
          JOIN locations p ON p.id = e.location_id
          LEFT JOIN lots l ON l.id = e.lot_id
         WHERE e.movement_id = ANY ($1::uuid[])
         ORDER BY e.movement_id, e.position
        """,
        list(movement_ids),
    )


def _movement(row: Row, entries: Sequence[Row]) -> Movement:
    return Movement(
        **row,
        entries=[
            Entry(
                line=entry["line"],
                sku=entry["sku"],
                warehouse=entry["warehouse"],
                location=entry["location"],
                lot=entry["lot"],
                status=entry["status"],
                quantity=entry["quantity"],
                balance=entry["balance"],
                unit_cost=entry["unit_cost"],
            )
            for entry in entries
        ],
    )
