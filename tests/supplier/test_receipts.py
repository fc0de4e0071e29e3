"""Goods that come: how they are counted against the order, and how they become stock."""

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockade.kit.ids import uuid7
from tests.supplier.purchasing import (
    count_stock,
    find_violations,
    found_company,
    goods,
    order_of,
    read_events,
    send_order,
)
from tests.world import Api, World

LINE = {"sku": "A-1", "quantity": "10", "unit_cost": "2.5"}


async def receive(
    api: Api, order: dict[str, Any], body: dict[str, Any], expect: int = 201, **options: Any
) -> dict[str, Any]:
    return await api.post(f"/purchase-orders/{order['id']}/receive", body, expect=expect, **options)


async def read_order(api: Api, order: dict[str, Any]) -> dict[str, Any]:
    return await api.get(f"/purchase-orders/{order['id']}")


async def test_received_goods_are_in_stock_and_on_the_order(world: World):
    manager = await found_company(world, "A-1", "B-1")
    order = await send_order(manager, LINE, LINE | {"sku": "B-1"})
    receipt = await receive(manager, order, goods(order, "10", "4") | {"reference": "DN 7"})
    assert (receipt["status"], receipt["number"], receipt["reference"]) == ("posted", "GR-000001", "DN 7")
    assert (receipt["purchase_order_id"], receipt["warehouse"]) == (order["id"], "MAIN")
    assert [(line["sku"], line["quantity"], line["unit_cost"]) for line in receipt["lines"]] == [
        ("A-1", "10", "2.5"),
        ("B-1", "4", "2.5"),
    ]
    assert (await count_stock(manager, "A-1"), await count_stock(manager, "B-1")) == (10, 4)
    after = await read_order(manager, order)
    assert after["status"] == "partially_received"
    assert [line["received"] for line in after["lines"]] == ["10", "4"]
    assert await manager.get(f"/receipts/{receipt['id']}") == receipt


async def test_the_movement_names_the_receipt_the_receiver_and_the_cost(world: World):
    await found_company(world, "A-1")
    order = await send_order(world.as_("manager"), LINE)
    worker = world.as_("warehouse", subject="a-worker")
    receipt = await receive(worker, order, goods(order, "3"))
    movement = await worker.get(f"/movements/{receipt['movement_id']}")
    assert (movement["type"], movement["reference"]) == ("receipt", receipt["number"])
    assert movement["occurred_at"] == receipt["received_at"]
    assert (movement["actor"], receipt["received_by"]) == ("a-worker", "a-worker")
    assert {entry["unit_cost"] for entry in movement["entries"]} == {"2.5"}


async def test_a_posted_receipt_is_told_once(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    receipt = await receive(manager, order, goods(order, "3"), key="once")
    await receive(manager, order, goods(order, "3"), key="once")
    told = [event for event in await read_events(world) if event["type"] == "receipt.posted"]
    assert told == [{"type": "receipt.posted", "subject": receipt["id"], "data": receipt}]


async def test_the_last_goods_complete_the_order(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    await receive(manager, order, goods(order, "4"))
    await receive(manager, order, goods(order, "6"))
    assert (await read_order(manager, order))["status"] == "received"
    refused = await receive(manager, order, goods(order, "1"), expect=409)
    assert (refused["code"], refused["current_status"]) == ("wrong_status", "received")
    assert await count_stock(manager, "A-1") == 10


async def test_more_than_ordered_is_refused_with_what_may_still_come(world: World):
    manager = await found_company(world, "A-1", over_receipt_tolerance="0.05")
    order = await send_order(manager, LINE)
    await receive(manager, order, goods(order, "4"))
    refused = await receive(manager, order, goods(order, "6.500001"), expect=409)
    line = {"line_id": order["lines"][0]["id"], "line": 1, "sku": "A-1", "requested": "6.500001", "allowed": "6.5"}
    assert (refused["code"], refused["lines"]) == ("over_receipt", [line])
    assert refused["errors"][0]["pointer"] == "/lines/0/quantity"
    assert await count_stock(manager, "A-1") == 4
    await receive(manager, order, goods(order, "6.5"))
    assert (await read_order(manager, order))["lines"][0]["received"] == "10.5"


async def test_what_may_still_come_is_never_rounded_up(world: World):
    manager = await found_company(world, "A-1", over_receipt_tolerance="0.333333")
    order = await send_order(manager, LINE | {"quantity": "0.000002"})
    refused = await receive(manager, order, goods(order, "0.000003"), expect=409)
    assert refused["lines"][0]["allowed"] == "0.000002"
    await receive(manager, order, goods(order, "0.000002"))


async def test_several_lots_of_a_line_count_together(world: World):
    manager = await found_company(world, "A-1", tracking="lot")
    order = await send_order(manager, LINE)
    line_id = order["lines"][0]["id"]
    lots = [
        {"line_id": line_id, "quantity": "6", "lot": "L1", "expires_on": "2031-01-31"},
        {"line_id": line_id, "quantity": "5", "lot": "L2", "expires_on": "2031-02-28"},
    ]
    refused = await receive(manager, order, {"lines": lots}, expect=409)
    assert [error["pointer"] for error in refused["errors"]] == ["/lines/0/quantity", "/lines/1/quantity"]
    lots[1]["quantity"] = "4"
    receipt = await receive(manager, order, {"lines": lots})
    assert [(line["lot"], line["expires_on"]) for line in receipt["lines"]] == [
        ("L1", "2031-01-31"),
        ("L2", "2031-02-28"),
    ]
    movement = await manager.get(f"/movements/{receipt['movement_id']}")
    came = {entry["lot"]: entry["quantity"] for entry in movement["entries"] if Decimal(entry["quantity"]) > 0}
    assert came == {"L1": "6", "L2": "4"}


async def test_what_inventory_refuses_leaves_nothing_behind(world: World):
    manager = await found_company(world, "A-1", tracking="lot")
    order = await send_order(manager, LINE, LINE)
    body = goods(order, "5", "5", lot="L1")
    del body["lines"][1]["lot"]
    refused = await receive(manager, order, body, expect=422, key="once")
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("lot_required", "/lines/1/lot")
    assert await read_order(manager, order) == order
    assert (await manager.get("/receipts"))["items"] == []
    assert await find_violations(world) == []
    body["lines"][1]["lot"] = "L2"
    await receive(manager, order, body, key="once")
    assert await count_stock(manager, "A-1") == 10


async def test_a_field_that_the_receiver_did_not_send_is_pointed_at_by_its_line(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE, warehouse="NOWHERE")
    refused = await receive(manager, order, goods(order, "1"), expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_warehouse", "/lines/0/line_id")
    await manager.post("/warehouses", {"code": "NOWHERE", "name": "Somewhere after all"})
    await receive(manager, order, goods(order, "1"))


async def test_an_unknown_location_is_pointed_at(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    refused = await receive(manager, order, goods(order, "1", location="NO-BIN"), expect=422)
    assert refused["errors"][0]["pointer"] == "/lines/0/location"


async def test_the_same_key_receives_once(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    first = await receive(manager, order, goods(order, "4"), key="once")
    assert await receive(manager, order, goods(order, "4"), key="once") == first
    reused = await receive(manager, order, goods(order, "5"), key="once", expect=422)
    assert reused["code"] == "idempotency_key_reused"
    missing = await receive(manager, order, goods(order, "4"), key=None, expect=428)
    assert missing["code"] == "idempotency_key_required"
    assert await count_stock(manager, "A-1") == 4


async def test_eight_requests_with_one_key_are_one_receipt(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    answers = await asyncio.gather(*(receive(manager, order, goods(order, "4"), key="once") for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert await count_stock(manager, "A-1") == 4


async def test_of_two_receipts_of_the_last_units_one_is_refused(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    path = f"/purchase-orders/{order['id']}/receive"
    answers = await asyncio.gather(*(manager.request("POST", path, goods(order, "10")) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    loser = next(answer.json() for answer in answers if answer.status_code == 409)
    assert loser["code"] in {"over_receipt", "wrong_status"}
    assert await count_stock(manager, "A-1") == 10
    assert await find_violations(world) == []


async def test_twenty_receipts_at_once_take_exactly_what_was_ordered(world: World):
    manager = await found_company(world, "A-1", "B-1")
    order = await send_order(manager, LINE, LINE | {"sku": "B-1", "quantity": "100"})
    path = f"/purchase-orders/{order['id']}/receive"
    # Half of them name the lines the other way round, which would deadlock if each locked as it reads.
    bodies = [goods(order, "1", "1") for _ in range(20)]
    for body in bodies[::2]:
        body["lines"].reverse()
    answers = await asyncio.gather(*(manager.request("POST", path, body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [409] * 10
    assert (await count_stock(manager, "A-1"), await count_stock(manager, "B-1")) == (10, 10)
    assert [line["received"] for line in (await read_order(manager, order))["lines"]] == ["10", "10"]
    assert await find_violations(world) == []


async def test_receiving_and_cancelling_at_once_never_both_succeed(world: World):
    manager = await found_company(world, "A-1")
    for _ in range(5):
        order = await send_order(manager, LINE)
        received, cancelled = await asyncio.gather(
            manager.request("POST", f"/purchase-orders/{order['id']}/receive", goods(order, "10")),
            manager.request("POST", f"/purchase-orders/{order['id']}/cancel"),
        )
        assert sorted((received.status_code == 201, cancelled.status_code == 200)) == [False, True]


@pytest.mark.parametrize("steps", [(), ("submit",), ("approve",), ("approve", "send", "close"), ("cancel",)])
async def test_only_a_sent_order_receives(world: World, steps: tuple[str, ...]):
    manager = await found_company(world, "A-1")
    order = await manager.post("/purchase-orders", order_of(LINE))
    for step in steps:
        order = await manager.post(f"/purchase-orders/{order['id']}/{step}", expect=200)
    refused = await receive(manager, order, goods(order, "1"), expect=409)
    assert (refused["code"], refused["current_status"]) == ("wrong_status", order["status"])
    assert await count_stock(manager, "A-1") == 0


async def test_lines_of_another_order_are_unknown(world: World):
    manager = await found_company(world, "A-1")
    order, other = await send_order(manager, LINE), await send_order(manager, LINE)
    body = {"lines": goods(order, "1")["lines"] + goods(other, "1")["lines"]}
    refused = await receive(manager, order, body, expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_line", "/lines/1/line_id")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"quantity": "0"}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"quantity": "0.0000001"}, "quantity"),
        ({"quantity": 1}, "quantity"),
        ({"line_id": "first"}, "line_id"),
        ({"lot": ""}, "lot"),
        ({"location": "two words"}, "location"),
        ({"expires_on": "31.01.2030"}, "expires_on"),
        ({"unit_cost": "1"}, "unit_cost"),
    ],
)
async def test_it_points_at_the_field_that_makes_no_sense(world: World, change: dict[str, Any], field: str):
    body = {"lines": [{"line_id": str(uuid7()), "quantity": "1"} | change]}
    refused = await receive(world.as_("warehouse"), {"id": uuid7()}, body, expect=422)
    assert [error["pointer"] for error in refused["errors"]] == [f"/lines/0/{field}"]


async def test_no_lines_too_many_lines_and_unknown_orders_are_refused(world: World):
    worker, unknown = world.as_("warehouse"), {"id": uuid7()}
    line = {"line_id": str(uuid7()), "quantity": "1"}
    for lines in ([], [line] * 1001):
        refused = await receive(worker, unknown, {"lines": lines}, expect=422)
        assert refused["errors"][0]["pointer"] == "/lines"
    assert (await receive(worker, unknown, {"lines": [line]}, expect=404))["code"] == "purchase_order_not_found"
    assert (await worker.get(f"/receipts/{uuid7()}", expect=404))["code"] == "receipt_not_found"


async def test_a_thousand_lines_are_one_receipt(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, *[LINE] * 1000)
    receipt = await receive(manager, order, goods(order, *["10"] * 1000))
    assert len(receipt["lines"]) == 1000
    assert await count_stock(manager, "A-1") == 10_000
    assert (await read_order(manager, order))["status"] == "received"


async def test_the_list_is_newest_first_and_can_be_of_one_order(world: World):
    manager = await found_company(world, "A-1")
    order, other = await send_order(manager, LINE), await send_order(manager, LINE)
    made = [await receive(manager, order, goods(order, "1")) for _ in range(3)]
    made.append(await receive(manager, other, goods(other, "1")))

    async def list_numbers(**query: Any) -> list[str]:
        return [item["number"] for item in (await manager.get("/receipts", **query))["items"]]

    assert await list_numbers() == [receipt["number"] for receipt in reversed(made)]
    first = await manager.get("/receipts", purchase_order_id=order["id"], limit=2)
    assert await list_numbers(purchase_order_id=order["id"], limit=2, cursor=first["next"]) == [made[0]["number"]]
    assert (await manager.get("/receipts", expect=422, cursor="nonsense"))["code"] == "unknown_cursor"


@pytest.mark.parametrize("role", ["sales", "auditor", "viewer"])
async def test_only_those_who_receive_goods_may_post_them(world: World, role: str):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    refused = await receive(world.as_(role), order, goods(order, "1"), expect=403)
    assert refused["needs"] == "receipts:write"
    receipt = await receive(world.as_("purchasing"), order, goods(order, "1"))
    assert await world.as_(role).get(f"/receipts/{receipt['id']}") == receipt
    await world.as_().get("/receipts", expect=403)
    await world.anonymous().get("/receipts", expect=401)


async def test_a_posted_receipt_never_changes(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    receipt = await receive(manager, order, goods(order, "1"))
    connection = await world.connect("supplier")
    try:
        for statement in ("UPDATE receipts SET attempts = 9 WHERE id = $1", "DELETE FROM receipts WHERE id = $1"):
            with pytest.raises(asyncpg.RestrictViolationError, match=receipt["number"]):
                await connection.execute(statement, receipt["id"])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE receipt_lines SET quantity = 2 WHERE receipt_id = $1", receipt["id"])
    finally:
        await connection.close()


async def test_the_database_itself_refuses_more_than_the_tolerance(world: World):
    order = await send_order(await found_company(world, "A-1", over_receipt_tolerance="0.1"), LINE)
    connection = await world.connect("supplier")
    try:
        statement = "UPDATE purchase_order_lines SET received = $2 WHERE id = $1"
        await connection.execute(statement, order["lines"][0]["id"], Decimal(11))
        with pytest.raises(asyncpg.CheckViolationError, match="purchase_order_lines_within_tolerance"):
            await connection.execute(statement, order["lines"][0]["id"], Decimal("11.000001"))
    finally:
        await connection.close()


async def test_the_audit_finds_a_line_that_disagrees_with_its_receipts(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    await receive(manager, order, goods(order, "4"))
    assert await find_violations(world) == []
    connection = await world.connect("supplier")
    try:
        await connection.execute("UPDATE purchase_order_lines SET received = 5 WHERE id = $1", order["lines"][0]["id"])
    finally:
        await connection.close()
    [finding] = await find_violations(world)
    assert (finding["id"], finding["violations"]) == ("I9", 1)
    assert order["number"] in finding["examples"][0]


async def test_the_public_self_audit_answers_for_purchasing_as_well(world: World):
    await found_company(world)
    report = await world.as_("auditor").get("/integrity")
    ours = {
        found["id"]: found["violations"] for found in report["invariants"] if found["service"] == "supplier-service"
    }
    assert ours == {"I9": 0, "I16": 0}


QUANTITIES = st.integers(1, 8_000_000).map(lambda millionths: Decimal(millionths).scaleb(-6))
ACTIONS = st.lists(st.lists(st.tuples(st.integers(0, 1), QUANTITIES), min_size=1, max_size=3), min_size=1, max_size=6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tolerance=st.sampled_from(["0", "0.05", "0.333333", "1"]), actions=ACTIONS)
async def test_whatever_comes_never_exceeds_the_tolerance(
    world: World, tolerance: str, actions: list[list[tuple[int, Decimal]]]
):
    mark = uuid7().hex
    skus, code = (f"A-{mark}", f"B-{mark}"), f"S-{mark}"
    manager = world.as_("manager")
    for sku in skus:
        await manager.post("/products", {"sku": sku, "name": sku, "unit": "each"})
    await manager.post("/suppliers", {"code": code, "name": code, "over_receipt_tolerance": tolerance})
    await manager.request("POST", "/warehouses", {"code": "MAIN", "name": "Main"})
    order = await send_order(manager, *({"sku": sku, "quantity": "7.5"} for sku in skus), supplier=code)
    limit = (Decimal("7.5") * (1 + Decimal(tolerance))).quantize(Decimal("0.000001"), rounding="ROUND_DOWN")
    came = [Decimal(0), Decimal(0)]
    for lines in actions:
        sums = [sum((quantity for place, quantity in lines if place == n), Decimal(0)) for n in (0, 1)]
        fits = all(have + more <= limit for have, more in zip(came, sums, strict=True) if more)
        is_open = any(have < Decimal("7.5") for have in came)
        body = {"lines": [{"line_id": order["lines"][n]["id"], "quantity": f"{q:f}"} for n, q in lines]}
        await receive(manager, order, body, expect=201 if fits and is_open else 409)
        if fits and is_open:
            came = [have + more for have, more in zip(came, sums, strict=True)]
        now = await read_order(manager, order)
        assert [Decimal(line["received"]) for line in now["lines"]] == came
        assert (now["status"] == "received") == all(have >= Decimal("7.5") for have in came)
    assert [await count_stock(manager, sku) for sku in skus] == came
    assert await find_violations(world) == []
