"""The self-audit: each invariant, once broken behind the product's back, is named, and it alone."""

from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from stockade.inventory.checks import CHECKS
from stockade.kit.calls import Network, ServiceClient
from stockade.kit.integrity import run_checks
from tests.conftest import ServerThread
from tests.inventory.stocked import add_items, level, receive, stock
from tests.lasting import lasting_world
from tests.world import Api, World

LINE = {"sku": "A-1", "warehouse": "MAIN"}


async def live_a_day(world: World) -> Api:
    """Books in which everything has happened once: 21 on hand, of which 1 is damaged, 2 held and 2 allocated."""
    api = await stock(world, "10")
    await add_items(world, "L-1", tracking="lot")
    await api.post("/locations", {"warehouse": "MAIN", "code": "A-01"})
    await api.post("/warehouses", {"code": "EAST", "name": "East"})
    await move(api, "receipt", quantity="20", reference="R-20")
    await move(api, "issue", quantity="5")
    await move(api, "adjustment", quantity="-1")
    await move(api, "transfer", quantity="4", location="STOCK", to_location="A-01")
    await move(api, "transfer", quantity="2", to_warehouse="EAST")
    await move(api, "status_change", quantity="1", to_status="damaged")
    await receive(api, "3", "L-1", lot="LOT", expires_on="2031-01-01")
    for number in (1, 2):
        wrong = await move(api, "receipt", quantity="7", reference=f"WRONG-{number}")
        await api.post(f"/movements/{wrong['id']}/reverse")
    await hold(api, "2", reference="HELD")
    sold = await hold(api, "3", reference="SOLD")
    await api.post(f"/reservations/{sold['id']}/confirm", expect=200)
    await api.post(f"/reservations/{sold['id']}/consume", {"lines": [{"line": 1, "quantity": "1"}]})
    given_back = await hold(api, "1", reference="BACK")
    await api.post(f"/reservations/{given_back['id']}/release", expect=200)
    return api


async def move(api: Api, kind: str, *, reference: str | None = None, **line: Any) -> Any:
    body = {"type": kind, "reference": reference, "reason": "found" if kind == "adjustment" else None}
    return await api.post("/movements", body | {"lines": [LINE | line]})


async def hold(api: Api, quantity: str, *, reference: str) -> Any:
    return await api.post("/reservations", {"reference": reference, "lines": [LINE | {"quantity": quantity}]})


ITEM = "item_id = (SELECT id FROM items WHERE sku = 'A-1')"
MAIN = "warehouse_id = (SELECT id FROM warehouses WHERE code = 'MAIN')"
LEVEL = f"{ITEM} AND {MAIN}"
LATEST_RECEIPT = "(SELECT id FROM movements WHERE reference = 'R-20')"
HELD = "(SELECT id FROM reservations WHERE reference = 'HELD')"
SOLD = "(SELECT id FROM reservations WHERE reference = 'SOLD')"
TRANSFER = "(SELECT id FROM movements WHERE type = 'transfer' ORDER BY recorded_at LIMIT 1)"
WRONG_1, WRONG_2 = (f"(SELECT id FROM movements WHERE reference = 'WRONG-{number}')" for number in (1, 2))
SUPPLIER = f"location_id = (SELECT id FROM locations WHERE {MAIN} AND code = '@supplier')"

BREACHES: list[tuple[str, str, str]] = [
    (
        "I1", "an entry that was changed with its balance",
        # The last entry of that balance, so that no later one proves its predecessor wrong.
        f"""
        UPDATE entries SET quantity = quantity - 1, balance = balance - 1
         WHERE {SUPPLIER} AND {ITEM} AND (movement_id, position) = (
               SELECT e.movement_id, e.position FROM entries e JOIN outbox o ON o.subject = e.movement_id::text
                WHERE e.{SUPPLIER} AND e.{ITEM} ORDER BY o.position DESC, e.position DESC LIMIT 1);
        UPDATE balances SET quantity = quantity - 1 WHERE {SUPPLIER} AND {ITEM};
        UPDATE movements SET type = 'receipt', reverses = NULL WHERE type = 'reversal';
        """,
    ),
    (
        "I1", "a movement without entries",
        """
        INSERT INTO movements (id, type, actor, occurred_at, recorded_at) VALUES (gen_random_uuid(), 'issue', 'x', now(), now());
        INSERT INTO outbox (event_id, type, subject, data)
        SELECT gen_random_uuid(), 'movement.posted', id::text, '{}' FROM movements WHERE actor = 'x';
        """,
    ),
    ("I2", "a balance that was changed", f"UPDATE balances SET quantity = quantity - 1 WHERE {SUPPLIER} AND {ITEM}"),
    ("I2", "a balance that was lost", f"DELETE FROM balances WHERE {SUPPLIER} AND {ITEM}"),
    ("I2", "a level that was changed", f"UPDATE stock_levels SET sellable = sellable - 1 WHERE {LEVEL}"),
    (
        "I3", "a promise without goods",
        f"""
        ALTER TABLE stock_levels DROP CONSTRAINT stock_levels_promises_are_covered;
        UPDATE stock_levels SET reserved = reserved - 2 + 900 WHERE {LEVEL};
        UPDATE reservation_lines SET requested = 900, quantity = 900 WHERE reservation_id = {HELD};
        """,
    ),
    (
        "I3", "a place with less than nothing",
        # What the first transfer moved is made more than there was.
        f"""
        ALTER TABLE balances DROP CONSTRAINT balances_physical_not_negative;
        UPDATE entries SET quantity = sign(quantity) * 104, balance = balance + sign(quantity) * 100
         WHERE movement_id = {TRANSFER};
        UPDATE entries e SET balance = balance + CASE l.code WHEN 'STOCK' THEN -100 ELSE 100 END
          FROM locations l, outbox o, outbox t
         WHERE l.id = e.location_id AND l.code IN ('STOCK', 'A-01') AND e.{ITEM} AND e.status = 'sellable' AND e.{MAIN}
           AND o.subject = e.movement_id::text AND t.subject = {TRANSFER}::text AND o.position > t.position;
        UPDATE balances b SET quantity = quantity + CASE l.code WHEN 'STOCK' THEN -100 ELSE 100 END
          FROM locations l
         WHERE l.id = b.location_id AND l.code IN ('STOCK', 'A-01') AND b.{ITEM} AND b.{MAIN} AND b.status = 'sellable';
        """,
    ),
    (
        "I4", "a reservation that says to have shipped more than its movements",
        f"""
        UPDATE reservation_lines SET requested = requested + 1, quantity = quantity + 1, consumed = consumed + 1
         WHERE reservation_id = {SOLD}
        """,
    ),
    ("I5", "a level that forgot a hold", f"UPDATE stock_levels SET reserved = reserved - 1 WHERE {LEVEL}"),
    ("I5", "a level that forgot an allocation", f"UPDATE stock_levels SET allocated = allocated - 1 WHERE {LEVEL}"),
    ("I5", "a hold that was lost", f"UPDATE reservations SET status = 'confirmed' WHERE id = {HELD}"),
    (
        "I6", "two keys with one answer",
        """
        INSERT INTO idempotency_keys (actor, key, fingerprint, status, body)
        SELECT actor, key || '-twin', fingerprint, status, body FROM idempotency_keys WHERE status = 201 LIMIT 1
        """,
    ),
    (
        "I6", "a key that was left unfinished",
        """
        INSERT INTO idempotency_keys (actor, key, fingerprint, resource_id, created_at)
        VALUES ('user:x', 'left', '', gen_random_uuid(), now() - interval '2 hours')
        """,
    ),
    (
        "I11", "goods that will arrive tomorrow",
        f"UPDATE entries SET occurred_at = now() + interval '1 day' WHERE movement_id = {LATEST_RECEIPT}",
    ),
    (
        "I12", "a reversal of something else",
        f"UPDATE movements SET reverses = {LATEST_RECEIPT} WHERE reverses = {WRONG_1}",
    ),
    (
        "I12", "a second reversal",
        f"""
        ALTER TABLE movements DROP CONSTRAINT movements_reversed_once;
        UPDATE movements SET reverses = {WRONG_1} WHERE reverses = {WRONG_2};
        """,
    ),
    ("I13", "an event that was lost", f"DELETE FROM outbox WHERE subject = {LATEST_RECEIPT}::text"),
    (
        "I13", "an event that happened twice",
        f"""
        DROP INDEX outbox_one_event_a_movement;
        INSERT INTO outbox (event_id, type, subject, data)
        SELECT gen_random_uuid(), type, subject, data FROM outbox WHERE subject = {LATEST_RECEIPT}::text;
        """,
    ),
    (
        "I13", "two events in the wrong order",
        f"""
        DROP INDEX outbox_one_event_a_movement;
        UPDATE outbox SET subject = CASE subject WHEN {WRONG_1}::text THEN {TRANSFER}::text ELSE {WRONG_1}::text END
         WHERE subject IN ({WRONG_1}::text, {TRANSFER}::text);
        """,
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
async def lived(postgres: ServerThread, template: str, request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    """A world after a full day."""
    async with lasting_world(postgres, template, request) as world:
        await live_a_day(world)
        yield world


async def break_books(world: World, sql: str) -> asyncpg.Connection:
    """A connection whose open transaction has done what no right, trigger or foreign key would allow."""
    connection = await world.connect_as_superuser("inventory")
    await connection.execute("BEGIN; SET LOCAL session_replication_role = replica")
    await connection.execute(sql)
    return connection


async def test_a_full_day_breaks_nothing_and_every_invariant_is_looked_at(lived: World):
    now = await level(lived.as_("viewer"))
    assert {name: now[name] for name in ("on_hand", "sellable", "reserved", "allocated")} == {
        "on_hand": "21", "sellable": "20", "reserved": "2", "allocated": "2",
    }  # fmt: skip
    report = await lived.as_("auditor").get("/integrity")
    ids = [finding["id"] for finding in report["invariants"]]
    assert {"I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I11", "I12", "I13"} <= set(ids)
    assert ids == sorted(ids, key=lambda name: int(name[1:]))
    assert {finding["violations"] for finding in report["invariants"]} == {0}
    assert report["violations"] == 0


@pytest.mark.parametrize(("invariant", "breach", "sql"), BREACHES, ids=[f"{b[0]}: {b[1]}" for b in BREACHES])
async def test_the_one_invariant_is_found_that_is_broken_by(lived: World, invariant: str, breach: str, sql: str):
    connection = await break_books(lived, sql)
    findings = await run_checks(connection, checks=CHECKS, service="inventory-service")
    await connection.execute("ROLLBACK")
    await connection.close()
    broken = {finding["id"]: finding for finding in findings if finding["violations"]}
    assert set(broken) == {invariant}, (breach, broken)
    assert broken[invariant]["examples"], "an operator needs to know where"


def test_every_invariant_is_broken_at_least_once():
    assert {check.id for check in CHECKS} == {invariant for invariant, _, _ in BREACHES}


async def test_what_is_broken_is_told_by_the_api_and_by_the_metrics(world: World):
    await live_a_day(world)
    sql = next(sql for invariant, _, sql in BREACHES if invariant == "I5")
    connection = await break_books(world, sql)
    await connection.execute("COMMIT")
    await connection.close()
    report = await world.as_("auditor").get("/integrity")
    broken = {finding["id"]: finding for finding in report["invariants"] if finding["violations"]}
    assert (set(broken), report["violations"]) == ({"I5"}, 1)
    (example,) = broken["I5"]["examples"]
    assert "says 1 reserved and 2 allocated, reservations say 2 and 2" in example.replace(".000000", "")
    assert broken["I5"]["service"] == "inventory-service"
    metrics = (await world.http.get("/metrics")).text
    assert 'stockade_integrity_violations{invariant="I5",service="inventory-service"} 1.0' in metrics
    assert 'stockade_integrity_violations{invariant="I2",service="inventory-service"} 0.0' in metrics


async def test_a_service_that_does_not_answer_is_not_taken_for_a_kept_promise(world: World):
    clients: Any = world.context("inventory-service").clients
    clients["supplier-service"] = ServiceClient(
        service="inventory-service",
        target="supplier-service",
        transport=Network("http://127.0.0.1:1"),
        fetch_token=None,
    )
    report = await world.as_("auditor").get("/integrity")
    (finding,) = [finding for finding in report["invariants"] if finding["id"] == "I9"]
    assert finding["violations"] is None
    assert "unknown" in finding["promise"]


async def test_only_who_may_read_it_sees_it(world: World):
    assert (await world.as_().get("/integrity", expect=403))["needs"] == "integrity:read"
    await world.anonymous().get("/integrity", expect=401)
