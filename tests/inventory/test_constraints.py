"""The second wall: what the database refuses, whoever asks and whatever the Python above it believes."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from stockade.kit.ids import uuid7
from stockade.postgres import OWNER_ROLE
from tests.conftest import ServerThread
from tests.inventory.stocked import check_integrity, receive, stock
from tests.lasting import lasting_world
from tests.world import World

NO_LOT = UUID(int=0)


@dataclass
class Books:
    """The books of a test with one receipt of ten, and raw connections to them."""

    world: World
    service: asyncpg.Connection
    owner: asyncpg.Connection
    ids: dict[str, UUID]

    async def insert_movement(self, connection: asyncpg.Connection, identifier: UUID, **columns: Any) -> None:
        values = {"type": "receipt", "actor": "raw", "reverses": None} | columns
        await connection.execute(
            """
            INSERT INTO movements (id, type, actor, occurred_at, recorded_at, reverses)
            VALUES ($1, $2, $3, now() - interval '1 hour', now(), $4)
            """,
            identifier, values["type"], values["actor"], values["reverses"],
        )  # fmt: skip

    async def insert_entries(self, connection: asyncpg.Connection, movement: UUID, *quantities: str) -> None:
        """One statement; entries at even places are physical."""
        rows = [
            (movement, place, 1, self.ids["item"], self.ids["warehouse"], self.ids["@supplier" if place % 2 else "STOCK"],
             NO_LOT, "sellable", not place % 2, quantity, "0")
            for place, quantity in enumerate(quantities)
        ]  # fmt: skip
        await connection.execute(
            """
            INSERT INTO entries (movement_id, position, line, item_id, warehouse_id, location_id, lot_id, status, is_physical,
                                 quantity, balance, occurred_at, recorded_at)
            SELECT *, now(), now() FROM unnest($1::uuid[], $2::int[], $3::int[], $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[],
                                               $8::text[], $9::boolean[], $10::text[]::numeric[], $11::text[]::numeric[])
            """,
            *(list(column) for column in zip(*rows, strict=True)),
        )

    async def post(self, connection: asyncpg.Connection, *statements: tuple[str, ...], **columns: Any) -> None:
        """A movement with its entries, in one transaction, each tuple of quantities by a statement of its own."""
        async with connection.transaction():
            movement = uuid7()
            await self.insert_movement(connection, movement, **columns)
            for quantities in statements:
                await self.insert_entries(connection, movement, *quantities)

    async def insert_event(self, connection: asyncpg.Connection, movement: UUID) -> None:
        await connection.execute(
            "INSERT INTO outbox (event_id, type, subject, data) VALUES ($1, 'movement.posted', $2, '{}')",
            uuid7(), str(movement),
        )  # fmt: skip


@pytest.fixture(scope="module")
async def books(postgres: ServerThread, template: str, request: pytest.FixtureRequest) -> AsyncGenerator[Books]:
    """Books that no test can change; if one could, the integrity check at the end would tell."""
    async with lasting_world(postgres, template, request) as world:
        api = await stock(world, "10")
        movement = (await api.get("/movements"))["items"][0]
        wrong = await receive(api, "10", "A-1")
        await api.post(f"/movements/{wrong['id']}/reverse")
        await api.post("/reservations", {"lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "2"}]})
        service, owner = await world.connect("inventory"), await world.connect("inventory", role=OWNER_ROLE)
        ids = {"movement": UUID(movement["id"]), "reversed": UUID(wrong["id"])}
        ids["item"] = await owner.fetchval("SELECT id FROM items")
        ids["warehouse"] = await owner.fetchval("SELECT id FROM warehouses")
        ids |= {row["code"]: row["id"] for row in await owner.fetch("SELECT code, id FROM locations")}
        yield Books(world, service, owner, ids)
        await service.close()
        await owner.close()
        await check_integrity(world)


CHANGES = [
    "UPDATE movements SET reason = 'edited'",
    "UPDATE movements SET occurred_at = occurred_at - interval '1 day'",
    "UPDATE movements SET actor = actor WHERE false",
    "DELETE FROM movements",
    "DELETE FROM movements WHERE false",
    "TRUNCATE movements CASCADE",
    "UPDATE entries SET quantity = quantity * 2",
    "UPDATE entries SET unit_cost = 1",
    "DELETE FROM entries",
    "DELETE FROM entries WHERE false",
    "TRUNCATE entries",
    "TRUNCATE movements, entries",
]


@pytest.mark.parametrize("statement", CHANGES)
async def test_the_ledger_is_append_only_for_the_service_and_for_the_owner(books: Books, statement: str):
    for connection in (books.service, books.owner):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_the_owner_is_told_why(books: Books):
    with pytest.raises(
        asyncpg.InsufficientPrivilegeError, match="movements is append-only: correct it with a reversal"
    ):
        await books.owner.execute("DELETE FROM movements")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="entries is append-only"):
        await books.owner.execute("DELETE FROM entries")


FORBIDDEN_TO_THE_SERVICE = [
    "ALTER TABLE entries DISABLE TRIGGER ALL",
    "ALTER TABLE movements DISABLE TRIGGER movements_are_append_only",
    "DROP TRIGGER entries_sum_to_zero ON entries",
    "ALTER TABLE stock_levels DROP CONSTRAINT stock_levels_promises_are_covered",
    "DROP TABLE balances",
    "CREATE TABLE mine (id int)",
    "SET session_replication_role = replica",
    "DELETE FROM stock_levels",
    "DELETE FROM balances",
    "DELETE FROM outbox",
    "UPDATE outbox SET data = '{}'",
    "DELETE FROM reservations",
    "DELETE FROM reservation_lines",
    "DELETE FROM items",
    "DELETE FROM warehouses",
    "UPDATE locations SET kind = 'physical'",
    "UPDATE lots SET expires_on = NULL",
    "UPDATE applied_migrations SET checksum = ''",
    "SELECT setval('outbox_position_seq', 1)",
    "TRUNCATE stock_levels",
]


@pytest.mark.parametrize("statement", FORBIDDEN_TO_THE_SERVICE)
async def test_the_service_has_no_right_to_weaken_its_books(books: Books, statement: str):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await books.service.execute(statement)


@pytest.mark.parametrize("quantities", [("10", "-9"), ("1", "1"), ("-5", "5", "0.000001"), ("1",)])
async def test_entries_that_do_not_balance_are_refused(books: Books, quantities: tuple[str, ...]):
    for connection in (books.service, books.owner):
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await books.post(connection, quantities)
        assert caught.value.constraint_name == "entries_sum_to_zero"


async def test_entries_that_balance_only_over_several_statements_are_refused(books: Books):
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await books.post(books.service, ("5",), ("-5",))
    assert caught.value.constraint_name == "entries_sum_to_zero"


async def test_entries_that_balance_only_over_two_items_are_refused(books: Books):
    other = uuid7()
    await books.owner.execute("INSERT INTO items VALUES ($1, 'B-1', 'B', 'each', 'none', true, 1)", other)
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await books.service.execute(
            """
            INSERT INTO entries (movement_id, position, line, item_id, warehouse_id, location_id, lot_id, status,
                                 is_physical, quantity, balance, occurred_at, recorded_at)
            SELECT $1, 10 + n, 1, item, $4, $5, $6, 'sellable', true, quantity, 0, now(), now()
              FROM unnest(ARRAY[1, 2], ARRAY[$2, $3]::uuid[], ARRAY[5, -5]::numeric[]) AS e (n, item, quantity)
            """,
            books.ids["movement"], books.ids["item"], other, books.ids["warehouse"], books.ids["STOCK"], NO_LOT,
        )  # fmt: skip
    assert caught.value.constraint_name == "entries_sum_to_zero"


@pytest.mark.parametrize("quantities", [(), ("5",)])
async def test_a_movement_without_two_entries_is_refused_at_the_commit(books: Books, quantities: tuple[str, ...]):
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await books.post(books.service, *([quantities] if quantities else []))
    assert caught.value.constraint_name in ("movements_have_entries", "entries_sum_to_zero")


async def test_entries_cannot_be_added_to_a_movement_that_is_not_there(books: Books):
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await books.insert_entries(books.service, uuid7(), "5", "-5")


async def test_a_movement_of_zero_is_none(books: Books):
    with pytest.raises(asyncpg.CheckViolationError):
        await books.post(books.service, ("0", "0"))


SENSELESS = [
    ("UPDATE balances SET quantity = -0.000001 WHERE is_physical", "balances_physical_not_negative"),
    ("UPDATE balances SET quantity = -5 WHERE is_physical", "balances_physical_not_negative"),
    ("UPDATE balances SET status = 'lost'", "balances_status_check"),
    ("UPDATE stock_levels SET reserved = 10.000001", "stock_levels_promises_are_covered"),
    ("UPDATE stock_levels SET allocated = 11", "stock_levels_promises_are_covered"),
    ("UPDATE stock_levels SET reserved = 6, allocated = 5", "stock_levels_promises_are_covered"),
    ("UPDATE stock_levels SET reserved = -1", None),
    ("UPDATE stock_levels SET allocated = -1", None),
    ("UPDATE stock_levels SET on_hand = -1, sellable = -1", None),
    ("UPDATE stock_levels SET sellable = 11", None),
    ("UPDATE stock_levels SET on_hand = 9", None),
    ("UPDATE stock_levels SET sellable = 4, reserved = 5", "stock_levels_promises_are_covered"),
    ("UPDATE reservation_lines SET consumed = quantity + 1", "reservation_lines_spent_within_quantity"),
    ("UPDATE reservation_lines SET consumed = 1, released = quantity", "reservation_lines_spent_within_quantity"),
    ("UPDATE reservation_lines SET consumed = -1", None),
    ("UPDATE reservation_lines SET released = -1", None),
    ("UPDATE reservation_lines SET quantity = requested + 1", None),
    ("UPDATE reservation_lines SET quantity = -1, requested = 1", None),
    ("UPDATE reservations SET status = 'lost'", None),
    ("UPDATE items SET tracking = 'maybe'", None),
]


@pytest.mark.parametrize(("statement", "constraint"), SENSELESS)
async def test_what_cannot_be_is_refused_whoever_writes_it(books: Books, statement: str, constraint: str | None):
    for connection in (books.service, books.owner):
        with pytest.raises(asyncpg.CheckViolationError) as caught:
            await connection.execute(statement)
        assert constraint in (None, caught.value.constraint_name)


async def test_a_virtual_balance_may_be_negative(books: Books):
    assert await books.owner.fetchval("SELECT quantity FROM balances WHERE NOT is_physical") == -10


async def test_a_movement_has_one_event(books: Books):
    for connection in (books.service, books.owner):
        with pytest.raises(asyncpg.UniqueViolationError) as caught:
            await books.insert_event(connection, books.ids["movement"])
        assert caught.value.constraint_name == "outbox_one_event_a_movement"


async def test_an_event_has_one_place_in_the_feed(books: Books):
    for statement in (
        "INSERT INTO outbox (position, event_id, type, subject, data) VALUES (1, gen_random_uuid(), 'x', 'x', '{}')",
        "INSERT INTO outbox (event_id, type, subject, data) SELECT event_id, 'x', 'x', '{}' FROM outbox LIMIT 1",
    ):
        with pytest.raises((asyncpg.UniqueViolationError, asyncpg.GeneratedAlwaysError)):
            await books.service.execute(statement)


async def test_a_movement_is_reversed_once(books: Books):
    for connection in (books.service, books.owner):
        with pytest.raises(asyncpg.UniqueViolationError) as caught:
            await books.post(connection, type="reversal", reverses=books.ids["reversed"])
        assert caught.value.constraint_name == "movements_reversed_once"


@pytest.mark.parametrize(
    ("kind", "reverses"), [("reversal", False), ("receipt", True), ("issue", True), ("theft", False)]
)
async def test_a_reversal_names_what_it_reverses_and_nothing_else_does(books: Books, kind: str, reverses: bool):
    with pytest.raises(asyncpg.CheckViolationError):
        await books.insert_movement(
            books.service, uuid7(), type=kind, reverses=books.ids["movement"] if reverses else None
        )


async def test_nothing_has_occurred_after_it_was_recorded(books: Books):
    with pytest.raises(asyncpg.CheckViolationError):
        await books.service.execute(
            """
            INSERT INTO movements (id, type, actor, occurred_at, recorded_at)
            VALUES ($1, 'receipt', 'raw', now() + interval '1 second', now())
            """,
            uuid7(),
        )


async def test_names_are_taken_once(books: Books):
    for statement in (
        "INSERT INTO warehouses (id, code, name) VALUES (gen_random_uuid(), 'MAIN', 'x')",
        "INSERT INTO locations SELECT gen_random_uuid(), warehouse_id, code, kind FROM locations WHERE code = 'STOCK'",
        "INSERT INTO items VALUES (gen_random_uuid(), 'A-1', 'x', 'each', 'none', true, 1)",
    ):
        with pytest.raises(asyncpg.UniqueViolationError):
            await books.service.execute(statement)


@pytest.mark.parametrize(("code", "kind"), [("@mine", "physical"), ("PLACE", "supplier"), ("PLACE", "moon")])
async def test_only_virtual_locations_have_virtual_names(books: Books, code: str, kind: str):
    with pytest.raises(asyncpg.CheckViolationError):
        await books.service.execute(
            "INSERT INTO locations (id, warehouse_id, code, kind) VALUES ($1, $2, $3, $4)",
            uuid7(), books.ids["warehouse"], code, kind,
        )  # fmt: skip


async def test_a_refused_write_is_an_answer_that_leaks_no_table(books: Books):
    """Nothing reaches the constraint through the API; if it ever does, the client sees no SQL."""
    answer = await books.world.as_("manager").request(
        "POST", "/movements", {"type": "issue", "lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "11"}]}
    )
    assert answer.status_code == 409
    assert "stock_levels" not in json.dumps(answer.json())
