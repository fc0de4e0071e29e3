"""The books: lock the stock levels in key order, check, write balances and levels, append the movement and its entries.

`open_books` locks, `Books.add` plans one entry and refuses what cannot be, `write_movement` makes it so. Every verb that
changes stock on hand goes through these three, so the order of locks and the rules are in one place. What is written are
differences, never totals that were read before: so even if a lock or a check were missing here, nothing would be lost
from the books, and the constraints of the database would refuse what cannot be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

from stockade.inventory.errors import InsufficientStock
from stockade.inventory.items import Place
from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, Invalid
from stockade.kit.events import Event, publish
from stockade.kit.ids import uuid7
from stockade.kit.shapes import plain

NO_LOT = UUID(int=0)
SELLABLE = "sellable"
ZERO = Decimal(0)

Key = tuple[UUID, UUID]
"""Item and warehouse: what a stock level is kept for, and the order in which levels are locked."""


@dataclass
class Level:
    """A locked stock level, as the transaction is about to leave it."""

    on_hand: Decimal
    sellable: Decimal
    reserved: Decimal
    allocated: Decimal

    def __post_init__(self) -> None:
        self._read = self._columns()

    def _columns(self) -> tuple[Decimal, Decimal, Decimal, Decimal]:
        return self.on_hand, self.sellable, self.reserved, self.allocated

    @property
    def changes(self) -> tuple[Decimal, ...]:
        """What is to be added to each column."""
        return tuple(now - before for now, before in zip(self._columns(), self._read, strict=True))

    @property
    def available(self) -> Decimal:
        return self.sellable - self.reserved - self.allocated


@dataclass(frozen=True)
class Bin:
    """Where exactly goods are: the key of a balance within an item."""

    location_id: UUID
    lot_id: UUID
    status: str
    is_physical: bool


@dataclass
class Balance:
    quantity: Decimal
    expires_on: date | None = None
    location: str = ""


@dataclass(frozen=True)
class Entry:
    line: int
    place: Place
    bin: Bin
    quantity: Decimal
    unit_cost: Decimal | None


@dataclass(frozen=True)
class MovementHead:
    """What a movement says of itself."""

    type: str
    actor: Actor
    reason: str | None = None
    reference: str | None = None
    occurred_at: datetime | None = None
    reverses: UUID | None = None
    reservation_id: UUID | None = None


@dataclass
class Books:
    """The locked part of the books, and the entries planned so far."""

    levels: dict[Key, Level]
    balances: dict[Key, dict[Bin, Balance]]
    entries: list[Entry] = field(default_factory=list[Entry])

    def add(self, line: int, place: Place, bin: Bin, quantity: Decimal, *, unit_cost: Decimal | None = None) -> None:
        """Plan one entry. Raises InsufficientStock when a physical place has not so much."""
        balance = self.balances.setdefault(place.key, {}).setdefault(bin, Balance(ZERO))
        if bin.is_physical and balance.quantity + quantity < 0:
            raise InsufficientStock([self._shortage(place, -quantity, balance.quantity)])
        balance.quantity += quantity
        if bin.is_physical:
            level = self.levels[place.key]
            level.on_hand += quantity
            level.sellable += quantity if bin.status == SELLABLE else ZERO
        self.entries.append(Entry(line, place, bin, quantity, unit_cost))

    def pick(
        self,
        place: Place,
        quantity: Decimal,
        *,
        status: str,
        location_id: UUID | None = None,
        lot_id: UUID | None = None,
        beside: UUID | None = None,
    ) -> list[tuple[Bin, Decimal]]:
        """Where to take a quantity from: the lot that expires first, then by location, but not from the location `beside`.

        Raises InsufficientStock.
        """
        candidates = sorted(
            (
                (balance.expires_on or date.max, balance.location, bin.lot_id, bin, balance.quantity)
                for bin, balance in self.balances.get(place.key, {}).items()
                if bin.is_physical
                and bin.status == status
                and balance.quantity > 0
                and (location_id is None or bin.location_id == location_id)
                and bin.location_id != beside
                and (lot_id is None or bin.lot_id == lot_id)
            ),
            key=lambda candidate: candidate[:3],
        )
        taken: list[tuple[Bin, Decimal]] = []
        left = quantity
        for *_, bin, there in candidates:
            part = min(there, left)
            taken.append((bin, part))
            left -= part
            if left == 0:
                return taken
        raise InsufficientStock([self._shortage(place, quantity, quantity - left)])

    def check_promises(self, before: dict[Key, Decimal]) -> None:
        """Refuse to take away what is promised to reservations. `before` is what was available at the start."""
        short = {
            entry.place.key: self._shortage(
                entry.place, before[entry.place.key] - level.available, before[entry.place.key]
            )
            for entry in self.entries
            if (level := self.levels[entry.place.key]).available < 0
        }
        if short:
            raise InsufficientStock(list(short.values()))

    def _shortage(self, place: Place, requested: Decimal, available: Decimal) -> dict[str, object]:
        return {
            "sku": place.sku,
            "warehouse": place.warehouse,
            "requested": requested,
            "available": max(available, ZERO),
        }


async def lock_levels(connection: Connection, places: Iterable[Place]) -> dict[Key, Level]:
    """Lock the stock levels of these places, in key order; those that do not exist yet are made first, empty.

    First, because whoever makes one holds it: made under the other locks, it could let two wait for each other.
    """
    places = list(places)
    if missing := sorted({place.key for place in places if not place.has_level}):
        await connection.execute(
            """
            INSERT INTO stock_levels (item_id, warehouse_id)
            SELECT item_id, warehouse_id FROM unnest($1::uuid[], $2::uuid[]) AS k (item_id, warehouse_id)
             ORDER BY item_id, warehouse_id
            ON CONFLICT DO NOTHING
            """,
            [item for item, _ in missing], [warehouse for _, warehouse in missing],
        )  # fmt: skip
    keys = sorted({place.key for place in places})
    rows = await connection.fetch(
        """
        SELECT s.item_id, s.warehouse_id, s.on_hand, s.sellable, s.reserved, s.allocated
          FROM stock_levels s
          JOIN unnest($1::uuid[], $2::uuid[]) AS k (item_id, warehouse_id) USING (item_id, warehouse_id)
         ORDER BY s.item_id, s.warehouse_id
           FOR UPDATE OF s
        """,
        [item for item, _ in keys], [warehouse for _, warehouse in keys],
    )  # fmt: skip
    return {
        (row["item_id"], row["warehouse_id"]): Level(row["on_hand"], row["sellable"], row["reserved"], row["allocated"])
        for row in rows
    }


async def open_books(connection: Connection, places: Sequence[Place]) -> Books:
    """Lock the stock levels of these places and read every balance below them."""
    levels = await lock_levels(connection, places)
    keys = list(levels)
    rows = await connection.fetch(
        """
        SELECT b.item_id, b.warehouse_id, b.location_id, b.lot_id, b.status, b.is_physical, b.quantity,
               l.expires_on, p.code AS location
          FROM unnest($1::uuid[], $2::uuid[]) AS k (item_id, warehouse_id)
          JOIN balances b ON b.item_id = k.item_id AND b.warehouse_id = k.warehouse_id
          JOIN locations p ON p.id = b.location_id
          LEFT JOIN lots l ON l.id = b.lot_id
        """,
        [item for item, _ in keys], [warehouse for _, warehouse in keys],
    )  # fmt: skip
    books = Books(levels, {})
    for row in rows:
        bin = Bin(row["location_id"], row["lot_id"], row["status"], row["is_physical"])
        key = row["item_id"], row["warehouse_id"]
        books.balances.setdefault(key, {})[bin] = Balance(row["quantity"], row["expires_on"], row["location"])
    return books


async def write_movement(connection: Connection, books: Books, head: MovementHead) -> UUID:
    """Write what was planned, all of it: levels, balances, the movement, its entries and its event."""
    assert len(books.entries) >= 2, "a movement has two or more entries"
    identifier = uuid7()
    await write_levels(connection, books.levels)
    balances = await _write_balances(connection, books.entries)
    recorded_at = await _write_head(connection, identifier, head)
    occurred_at = head.occurred_at or recorded_at
    await _write_entries(connection, identifier, books.entries, balances, occurred_at, recorded_at)
    await publish(connection, _event(identifier, head, occurred_at, books.entries))
    return identifier


async def write_levels(connection: Connection, levels: Mapping[Key, Level]) -> None:
    """Write what changed of locked levels."""
    changed = [(*key, *level.changes) for key, level in levels.items() if any(level.changes)]
    if not changed:
        return
    await connection.execute(
        """
        UPDATE stock_levels s
           SET on_hand = s.on_hand + n.on_hand, sellable = s.sellable + n.sellable,
               reserved = s.reserved + n.reserved, allocated = s.allocated + n.allocated
          FROM unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::numeric[], $5::numeric[], $6::numeric[])
               AS n (item_id, warehouse_id, on_hand, sellable, reserved, allocated)
         WHERE s.item_id = n.item_id AND s.warehouse_id = n.warehouse_id
        """,
        *(list(column) for column in zip(*changed, strict=True)),
    )


async def _write_balances(connection: Connection, entries: Sequence[Entry]) -> list[Decimal]:
    """Add up the entries on each balance; gives the balance after each of them."""
    changes: dict[tuple[UUID, Bin], Decimal] = {}
    for entry in entries:
        key = entry.place.item_id, entry.bin
        changes[key] = changes.get(key, ZERO) + entry.quantity
    first = {(entry.place.item_id, entry.bin): entry for entry in reversed(entries)}
    # A conflict is only seen after the row that would be inserted has passed its checks, so one that takes away proposes
    # itself as not physical. The update keeps what the balance is; a row that was inserted like that would be noticed below.
    rows = await connection.fetch(
        """
        INSERT INTO balances AS b (item_id, warehouse_id, location_id, lot_id, status, is_physical, quantity)
        SELECT c.item_id, c.warehouse_id, c.location_id, c.lot_id, c.status, c.is_physical AND c.quantity >= 0, c.quantity
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::boolean[], $7::numeric[])
               AS c (item_id, warehouse_id, location_id, lot_id, status, is_physical, quantity)
        ON CONFLICT (item_id, location_id, lot_id, status) DO UPDATE SET quantity = b.quantity + EXCLUDED.quantity
        RETURNING b.item_id, b.location_id, b.lot_id, b.status, b.is_physical, b.quantity
        """,
        *_columns([first[key] for key in changes]), list(changes.values()),
    )  # fmt: skip
    left = {(row[0], Bin(row[1], row[2], row[3], row[4])): row["quantity"] for row in rows}
    assert left.keys() == changes.keys(), "nothing is taken from a place that has never had anything"
    after: list[Decimal] = []
    for entry in reversed(entries):
        key = entry.place.item_id, entry.bin
        after.append(left[key])
        left[key] -= entry.quantity
    return after[::-1]


async def _write_head(connection: Connection, identifier: UUID, head: MovementHead) -> datetime:
    # The clock is read while the locks are held, so that the times of an item's movements are in their order.
    row = await connection.fetchrow(
        """
        INSERT INTO movements (id, type, reason, reference, actor, occurred_at, recorded_at, reverses, reservation_id)
        SELECT $1, $2, $3, $4, $5, coalesce($6, now.at), now.at, $7, $8 FROM (SELECT clock_timestamp() AS at) now
        ON CONFLICT (reverses) DO NOTHING
        RETURNING recorded_at
        """,
        identifier, head.type, head.reason, head.reference, head.actor.responsible,
        head.occurred_at, head.reverses, head.reservation_id,
    )  # fmt: skip
    if row is None:
        raise Conflict("This movement was reversed already.", code="already_reversed")
    return row["recorded_at"]


async def _write_entries(
    connection: Connection,
    identifier: UUID,
    entries: Sequence[Entry],
    balances: Sequence[Decimal],
    occurred_at: datetime,
    recorded_at: datetime,
) -> None:
    await connection.execute(
        """
        INSERT INTO entries (movement_id, position, line, item_id, warehouse_id, location_id, lot_id, status, is_physical,
                             quantity, balance, unit_cost, occurred_at, recorded_at)
        SELECT $1, e.position, e.line, e.item_id, e.warehouse_id, e.location_id, e.lot_id, e.status, e.is_physical,
               e.quantity, e.balance, e.unit_cost, $2, $3
          FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], $8::text[], $9::boolean[], $10::integer[],
                      $11::numeric[], $12::numeric[], $13::numeric[]) WITH ORDINALITY
               AS e (item_id, warehouse_id, location_id, lot_id, status, is_physical, line, quantity, balance, unit_cost, position)
        """,
        identifier, occurred_at, recorded_at, *_columns(entries), [entry.line for entry in entries],
        [entry.quantity for entry in entries], balances, [entry.unit_cost for entry in entries],
    )  # fmt: skip


def _columns(entries: Iterable[Entry]) -> list[list[object]]:
    rows = [
        (
            entry.place.item_id, entry.place.warehouse_id, entry.bin.location_id, entry.bin.lot_id,
            entry.bin.status, entry.bin.is_physical,
        )
        for entry in entries
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]


def _event(identifier: UUID, head: MovementHead, occurred_at: datetime, entries: list[Entry]) -> Event:
    data = {
        "id": str(identifier),
        "type": head.type,
        "reason": head.reason,
        "reference": head.reference,
        "actor": head.actor.responsible,
        "occurred_at": occurred_at.isoformat(),
        "reverses": head.reverses and str(head.reverses),
        "changes": [
            {
                "line": entry.line,
                "sku": entry.place.sku,
                "warehouse": entry.place.warehouse,
                "status": entry.bin.status,
                "quantity": plain(entry.quantity),
            }
            for entry in entries
            if entry.bin.is_physical
        ],
    }
    return Event("movement.posted", str(identifier), data)


def check_occurred_at(occurred_at: datetime, now: datetime) -> None:
    """Refuse a time that has not come yet: the books tell what happened."""
    if occurred_at > now:
        raise Invalid.field(
            "/occurred_at", "occurred_in_future", "The books tell what has happened; this lies in the future."
        )
