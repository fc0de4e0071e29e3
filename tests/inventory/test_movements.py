"""Movements: what each type does to the books, and what is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.inventory.stocked import add_items, check_integrity, level, receive, stock
from tests.world import World


async def move(api: Any, kind: str, expect: int = 201, **line: Any) -> Any:
    head = {"type": kind} | ({"reason": "found"} if kind == "adjustment" else {})
    return await api.post("/movements", head | {"lines": [{"sku": "A-1", "warehouse": "MAIN"} | line]}, expect=expect)


async def test_a_receipt_puts_goods_into_the_default_location(world: World):
    api = await stock(world, "12.5")
    now = await level(api)
    assert (now["on_hand"], now["sellable"], now["available"]) == ("12.5", "12.5", "12.5")
    entries = (await api.get("/movements", sku="A-1"))["items"][0]["entries"]
    assert [(entry["location"], entry["quantity"]) for entry in entries] == [("@supplier", "-12.5"), ("STOCK", "12.5")]
    await check_integrity(world)


async def test_an_issue_takes_goods_and_refuses_more_than_there_are(world: World):
    api = await stock(world, "10")
    await move(api, "issue", quantity="4")
    refused = await move(api, "issue", quantity="7", expect=409)
    assert refused["code"] == "insufficient_stock"
    assert refused["lines"] == [{"sku": "A-1", "warehouse": "MAIN", "requested": "7", "available": "6"}]
    assert (await level(api))["on_hand"] == "6"
    await check_integrity(world)


async def test_an_issue_cannot_take_what_is_promised(world: World):
    api = await stock(world, "10")
    await api.post("/reservations", {"lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "8"}]})
    refused = await move(api, "issue", quantity="3", expect=409)
    assert refused["lines"][0]["available"] == "2"
    await move(api, "issue", quantity="2")
    assert (await level(api))["available"] == "0"


async def test_adjustments_go_both_ways(world: World):
    api = await stock(world, "10")
    await move(api, "adjustment", quantity="-3")
    await move(api, "adjustment", quantity="0.5")
    assert (await level(api))["on_hand"] == "7.5"
    await check_integrity(world)


async def test_a_status_change_moves_goods_out_of_what_can_be_sold(world: World):
    api = await stock(world, "10")
    await move(api, "status_change", quantity="4", to_status="damaged")
    now = await level(api)
    assert (now["on_hand"], now["sellable"], now["available"]) == ("10", "6", "6")
    await move(api, "status_change", quantity="1", status="damaged", to_status="sellable")
    assert (await level(api))["available"] == "7"
    await check_integrity(world)


async def test_a_transfer_moves_between_locations_and_warehouses(world: World):
    api = await stock(world, "10")
    await api.post("/warehouses", {"code": "EAST", "name": "East"})
    await api.post("/locations", {"warehouse": "MAIN", "code": "A-01"})
    await move(api, "transfer", quantity="4", to_location="A-01")
    await move(api, "transfer", quantity="3", location="A-01", to_warehouse="EAST")
    assert (await level(api))["on_hand"] == "7"
    assert (await level(api, warehouse="EAST"))["on_hand"] == "3"
    totals = await api.get("/stock/A-1")
    assert (totals["on_hand"], [place["warehouse"] for place in totals["warehouses"]]) == ("10", ["EAST", "MAIN"])
    refused = await move(api, "transfer", quantity="2", location="A-01", to_location="A-01", expect=409)
    assert refused["code"] == "insufficient_stock"
    await check_integrity(world)


async def test_lots_are_issued_first_expired_first(world: World):
    await add_items(world, "L-1", tracking="lot")
    api = world.as_("manager")
    await api.post("/warehouses", {"code": "MAIN", "name": "Main"})
    await receive(api, "5", "L-1", lot="LATE", expires_on="2031-01-01")
    await receive(api, "5", "L-1", lot="SOON", expires_on="2030-01-01")
    issued = await api.post(
        "/movements", {"type": "issue", "lines": [{"sku": "L-1", "warehouse": "MAIN", "quantity": "7"}]}
    )
    taken = [(entry["lot"], entry["quantity"]) for entry in issued["entries"] if entry["location"] == "STOCK"]
    assert taken == [("SOON", "-5"), ("LATE", "-2")]
    body: Any = {"type": "receipt", "lines": [{"sku": "L-1", "warehouse": "MAIN", "quantity": "1"}]}
    assert (await api.post("/movements", body, expect=422))["code"] == "lot_required"
    body["lines"][0] |= {"lot": "SOON", "expires_on": "2032-01-01"}
    assert (await api.post("/movements", body, expect=422))["code"] == "lot_expiry_differs"
    await check_integrity(world)


async def test_a_movement_is_reversed_exactly_and_once(world: World):
    api = await stock(world, "10")
    issue = await move(api, "issue", quantity="4")
    reversal = await api.post(f"/movements/{issue['id']}/reverse")
    assert reversal["reverses"] == issue["id"]
    assert (await level(api))["on_hand"] == "10"
    assert (await api.post(f"/movements/{issue['id']}/reverse", expect=409))["code"] == "already_reversed"
    assert (await api.post(f"/movements/{reversal['id']}/reverse", expect=409))["code"] == "is_reversal"
    await check_integrity(world)


async def test_a_receipt_whose_goods_are_gone_cannot_be_reversed(world: World):
    api = await stock(world, "10")
    receipt = (await api.get("/movements"))["items"][0]
    await move(api, "issue", quantity="4")
    assert (await api.post(f"/movements/{receipt['id']}/reverse", expect=409))["code"] == "insufficient_stock"
    await check_integrity(world)


async def test_stock_is_told_as_of_any_instant(world: World):
    api = await stock(world, "0.5")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    body = {
        "type": "receipt",
        "occurred_at": yesterday.isoformat(),
        "lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "2"}],
    }
    await api.post("/movements", body)
    then = (await api.get("/stock", sku="A-1", as_of=(yesterday + timedelta(hours=1)).isoformat()))["items"][0]
    before = (await api.get("/stock", sku="A-1", as_of=(yesterday - timedelta(hours=1)).isoformat()))["items"][0]
    now = (await api.get("/stock", sku="A-1", as_of=datetime.now(UTC).isoformat()))["items"][0]
    assert (before["on_hand"], then["on_hand"], now["on_hand"]) == ("0", "2", "2.5")
    assert (await level(api))["on_hand"] == "2.5"


async def test_a_replay_answers_the_same_and_moves_once(world: World):
    api = await stock(world, "10")
    body: Any = {"type": "issue", "lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "4"}]}
    first = await api.request("POST", "/movements", body, key="once")
    again = await api.request("POST", "/movements", body, key="once")
    assert (first.json(), again.headers["Idempotent-Replay"]) == (again.json(), "true")
    assert (await level(api))["on_hand"] == "6"
    body["lines"][0]["quantity"] = "5"
    assert (await api.post("/movements", body, key="once", expect=422))["code"] == "idempotency_key_reused"
    assert (await api.post("/movements", body, key=None, expect=428))["code"] == "idempotency_key_required"


LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"lines": [LINE | {"sku": "NOPE"}]}, "unknown_sku", "/lines/0/sku"),
        ({"lines": [LINE, LINE | {"warehouse": "NOPE"}]}, "unknown_warehouse", "/lines/1/warehouse"),
        ({"lines": [LINE | {"location": "NOPE"}]}, "unknown_location", "/lines/0/location"),
        ({"lines": [LINE | {"location": "@supplier"}]}, "string_pattern_mismatch", "/lines/0/location"),
        ({"lines": [LINE | {"lot": "L"}]}, "lot_not_tracked", "/lines/0/lot"),
        ({"lines": [LINE | {"quantity": "0"}]}, "quantity_zero", ""),
        ({"lines": [LINE | {"quantity": "-1"}]}, "quantity_negative", ""),
        ({"lines": [LINE | {"quantity": "0.0000001"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "1234567890123"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": 1}]}, "decimal_string", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "1e3"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"to_location": "X"}]}, "field_not_used", ""),
        ({"lines": [LINE | {"bogus": "X"}]}, "extra_forbidden", "/lines/0/bogus"),
        ({"lines": []}, "too_short", "/lines"),
        ({"lines": [LINE] * 1001}, "too_long", "/lines"),
        ({"type": "theft"}, "literal_error", "/type"),
        ({"type": "adjustment"}, "reason_required", ""),
        ({"type": "transfer"}, "destination_required", ""),
        ({"occurred_at": "2190-01-01T00:00:00Z"}, "occurred_in_future", "/occurred_at"),
        ({"occurred_at": "2020-01-01T00:00:00"}, "timezone_aware", "/occurred_at"),
        ({"reference": "a\u0000b"}, "control_character", "/reference"),
    ],
)
async def test_senseless_movements_are_refused_with_a_pointer(world: World, change: dict, code: str, pointer: str):
    api = await stock(world, "10")
    answer = await api.post("/movements", {"type": "receipt", "lines": [LINE]} | change, expect=422)
    assert (answer["errors"][0]["code"], answer["errors"][0]["pointer"]) == (code, pointer)
    assert (await level(api))["on_hand"] == "10"


async def test_quantities_beyond_the_books_are_refused_and_nothing_is_written(world: World):
    api = await stock(world, "999999999999.999999")
    assert (await move(api, "receipt", quantity="1", expect=422))["code"] == "invalid_value"
    assert (await level(api))["on_hand"] == "999999999999.999999"
    await check_integrity(world)
