"""Purchase orders on their way from draft to sent, and the ends that come without goods."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stockade.kit.ids import uuid7
from tests.supplier.purchasing import found_company, goods, order_of, read_events, send_order, watch_line
from tests.world import Api, World

LINE = {"sku": "A-1", "quantity": "10", "unit_cost": "2.5"}


async def draft(api: Api, **fields: Any) -> dict[str, Any]:
    return await api.post("/purchase-orders", order_of(LINE, **fields))


async def take(api: Api, order: dict[str, Any], step: str, expect: int = 200, **options: Any) -> dict[str, Any]:
    return await api.post(f"/purchase-orders/{order['id']}/{step}", expect=expect, **options)


async def test_a_draft_says_what_was_asked_for(world: World):
    manager = await found_company(world, "A-1", "B-1")
    body = order_of(LINE, {"sku": "B-1", "quantity": "0.5"}, reference="R-9", expected_on="2030-01-31")
    order = await manager.post("/purchase-orders", body)
    assert (order["status"], order["number"], order["version"]) == ("draft", "PO-000001", 1)
    assert (order["supplier"], order["warehouse"]) == ("ACME", "MAIN")
    assert (order["reference"], order["expected_on"]) == ("R-9", "2030-01-31")
    assert [(line["line"], line["sku"], line["ordered"], line["received"]) for line in order["lines"]] == [
        (1, "A-1", "10", "0"),
        (2, "B-1", "0.5", "0"),
    ]
    answer = await manager.request("GET", f"/purchase-orders/{order['id']}")
    assert (answer.json(), answer.headers["ETag"]) == (order, '"1"')


async def test_a_line_without_a_price_gets_the_one_of_the_suppliers_item(world: World):
    manager = await found_company(world, "A-1", "B-1")
    supplier = (await manager.get("/suppliers"))["items"][0]
    await manager.post(f"/suppliers/{supplier['id']}/items", {"items": [{"sku": "A-1", "unit_cost": "4"}]}, expect=200)
    body = order_of({"sku": "A-1", "quantity": "1"}, LINE, {"sku": "B-1", "quantity": "1"})
    order = await manager.post("/purchase-orders", body)
    assert [line["unit_cost"] for line in order["lines"]] == ["4", "2.5", None]


async def test_the_same_key_drafts_one_order_even_when_the_product_is_gone_since(world: World):
    manager = await found_company(world, "A-1")
    first = await manager.post("/purchase-orders", order_of(LINE), key="once")
    answer = await manager.request("GET", "/products/A-1")
    await manager.patch("/products/A-1", {"is_active": False}, if_match=answer.headers["ETag"])
    again = await manager.request("POST", "/purchase-orders", order_of(LINE), key="once")
    assert (again.json(), again.headers["Idempotent-Replay"]) == (first, "true")
    refused = await manager.post("/purchase-orders", order_of(LINE), expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("inactive_sku", "/lines/0/sku")
    assert len((await manager.get("/purchase-orders"))["items"]) == 1


async def test_eight_requests_with_one_key_draft_one_order(world: World):
    manager = await found_company(world, "A-1")
    answers = await asyncio.gather(*(manager.post("/purchase-orders", order_of(LINE), key="once") for _ in range(8)))
    assert len({answer["id"] for answer in answers}) == 1
    assert len((await manager.get("/purchase-orders"))["items"]) == 1


async def test_a_key_is_needed_and_serves_one_request(world: World):
    manager = await found_company(world, "A-1")
    missing = await manager.post("/purchase-orders", order_of(LINE), key=None, expect=428)
    assert missing["code"] == "idempotency_key_required"
    await manager.post("/purchase-orders", order_of(LINE), key="once")
    reused = await manager.post("/purchase-orders", order_of(LINE, reference="other"), key="once", expect=422)
    assert reused["code"] == "idempotency_key_reused"


async def test_an_unknown_sku_is_pointed_at(world: World):
    manager = await found_company(world, "A-1")
    refused = await manager.post("/purchase-orders", order_of(LINE, LINE | {"sku": "NO-1"}), expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_sku", "/lines/1/sku")
    assert (await manager.get("/purchase-orders"))["items"] == []


async def test_an_unknown_supplier_is_pointed_at(world: World):
    manager = await found_company(world, "A-1")
    refused = await manager.post("/purchase-orders", order_of(LINE, supplier="NOBODY"), expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_supplier", "/supplier")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"lines": []}, "/lines"),
        ({"lines": [LINE] * 1001}, "/lines"),
        ({"lines": [LINE | {"quantity": "0"}]}, "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "-1"}]}, "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "0.0000001"}]}, "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": 1}]}, "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "1000000000000"}]}, "/lines/0/quantity"),
        ({"lines": [LINE | {"unit_cost": "-1"}]}, "/lines/0/unit_cost"),
        ({"lines": [LINE | {"price": "1"}]}, "/lines/0/price"),
        ({"warehouse": ""}, "/warehouse"),
        ({"supplier": None}, "/supplier"),
        ({"expected_on": "soon"}, "/expected_on"),
        ({"expected_on": 7}, "/expected_on"),
        ({"expected_on": "2030-02-30"}, "/expected_on"),
    ],
)
async def test_it_points_at_the_field_that_makes_no_sense(world: World, change: dict[str, Any], pointer: str):
    refused = await world.as_("purchasing").post("/purchase-orders", order_of(LINE) | change, expect=422)
    assert [error["pointer"] for error in refused["errors"]] == [pointer]


async def test_more_skus_than_the_catalog_is_asked_for_at_once_are_all_checked(world: World):
    skus = [f"P-{number}" for number in range(250)]
    manager = await found_company(world)
    products = [{"sku": sku, "name": sku, "unit": "each"} for sku in skus]
    await manager.post("/products/bulk", {"products": products}, expect=200)
    lines = [LINE | {"sku": sku} for sku in skus]
    assert len((await manager.post("/purchase-orders", order_of(*lines)))["lines"]) == 250
    lines[30]["sku"], lines[249]["sku"] = "NO-1", "NO-2"
    refused = await manager.post("/purchase-orders", order_of(*lines), expect=422)
    assert [error["pointer"] for error in refused["errors"]] == ["/lines/30/sku", "/lines/249/sku"]


async def test_a_thousand_lines_are_one_order(world: World):
    manager = await found_company(world, "A-1")
    order = await manager.post("/purchase-orders", order_of(*[LINE] * 1000))
    assert [line["line"] for line in order["lines"]] == list(range(1, 1001))


async def test_an_order_goes_by_approval_to_the_supplier_and_tells_it(world: World):
    manager = await found_company(world, "A-1", lead_time_days=7)
    order = await draft(manager)
    assert (await take(manager, order, "submit"))["status"] == "pending_approval"
    approved = await take(manager, order, "approve")
    assert (approved["status"], approved["approved_by"]) == ("approved", order["created_by"])
    sent = await take(manager, order, "send")
    days = {(datetime.now(UTC) + timedelta(days=7, minutes=shift)).date().isoformat() for shift in (-1, 0)}
    assert sent["status"] == "sent"
    assert sent["expected_on"] in days
    events = await read_events(world)
    assert [event["type"] for event in events] == ["purchase_order.approved", "purchase_order.sent"]
    assert {event["subject"] for event in events} == {order["id"]}


async def test_a_step_taken_twice_is_taken_once(world: World):
    manager = await found_company(world, "A-1")
    order = await draft(manager)
    for step in ("submit", "approve", "send", "close"):
        first = await take(manager, order, step)
        assert await take(manager, order, step) == first
    assert len(await read_events(world)) == 2


STEPS_FROM = {
    "draft": {"submit", "approve", "cancel"},
    "pending_approval": {"approve", "reject", "cancel"},
    "approved": {"send", "cancel"},
    "rejected": set(),
    "sent": {"cancel", "close"},
    "partially_received": {"close"},
    "received": {"close"},
    "closed": set(),
    "cancelled": set(),
}
TARGETS = {
    "submit": "pending_approval",
    "approve": "approved",
    "reject": "rejected",
    "send": "sent",
    "cancel": "cancelled",
    "close": "closed",
}
WAYS = {
    "draft": (),
    "pending_approval": ("submit",),
    "approved": ("approve",),
    "rejected": ("submit", "reject"),
    "sent": ("approve", "send"),
    "partially_received": ("approve", "send", "4"),
    "received": ("approve", "send", "10"),
    "closed": ("approve", "send", "close"),
    "cancelled": ("cancel",),
}


@pytest.mark.parametrize("status", STEPS_FROM)
async def test_only_these_steps_lead_away_from(world: World, status: str):
    manager = await found_company(world, "A-1")
    for step, target in TARGETS.items():
        order = await draft(manager)
        for earlier in WAYS[status]:
            if earlier.isdigit():
                await manager.post(f"/purchase-orders/{order['id']}/receive", goods(order, earlier))
            else:
                await take(manager, order, earlier)
        if step in STEPS_FROM[status] or target == status:
            assert (await take(manager, order, step))["status"] == target
        else:
            refused = await take(manager, order, step, expect=409)
            assert (refused["code"], refused["current_status"]) == ("wrong_status", status)
            assert (await manager.get(f"/purchase-orders/{order['id']}"))["status"] == status


async def test_a_tolerance_agreed_later_does_not_reach_back(world: World):
    manager = await found_company(world, "A-1")
    supplier = (await manager.get("/suppliers"))["items"][0]
    order = await send_order(manager, LINE)
    await manager.patch(f"/suppliers/{supplier['id']}", {"over_receipt_tolerance": "1"}, if_match='"1"')
    await manager.post(f"/purchase-orders/{order['id']}/receive", goods(order, "11"), expect=409)
    later = await send_order(manager, LINE)
    await manager.post(f"/purchase-orders/{later['id']}/receive", goods(later, "20"))


async def test_the_list_is_newest_first_and_can_be_filtered(world: World):
    manager = await found_company(world, "A-1")
    await manager.post("/suppliers", {"code": "OTHER", "name": "Other"})
    orders = [await draft(manager) for _ in range(3)] + [await draft(manager, supplier="OTHER")]
    await take(manager, orders[1], "submit")

    async def list_numbers(**query: Any) -> list[str]:
        return [item["number"] for item in (await manager.get("/purchase-orders", **query))["items"]]

    assert await list_numbers() == [order["number"] for order in reversed(orders)]
    assert await list_numbers(supplier="OTHER") == [orders[3]["number"]]
    assert await list_numbers(status="pending_approval") == [orders[1]["number"]]
    first = await manager.get("/purchase-orders", limit=2, supplier="ACME")
    assert await list_numbers(supplier="ACME", limit=2, cursor=first["next"]) == [orders[0]["number"]]
    await manager.get("/purchase-orders", expect=422, status="unheard")
    assert (await manager.get("/purchase-orders", expect=422, cursor="nonsense"))["code"] == "unknown_cursor"


@pytest.mark.parametrize("step", TARGETS)
async def test_an_unknown_order_takes_no_step(world: World, step: str):
    unknown = {"id": uuid7()}
    assert (await take(world.as_("manager"), unknown, step, expect=404))["code"] == "purchase_order_not_found"
    await world.as_("manager").get(f"/purchase-orders/{unknown['id']}", expect=404)


async def test_purchasing_may_write_but_not_approve(world: World):
    await found_company(world, "A-1")
    buyer = world.as_("purchasing")
    order = await draft(buyer)
    await take(buyer, order, "submit")
    for step in ("approve", "reject"):
        assert (await take(buyer, order, step, expect=403))["needs"] == "purchase-orders:approve"
    assert (await buyer.get(f"/purchase-orders/{order['id']}"))["status"] == "pending_approval"
    await take(world.as_("manager"), order, "approve")
    await take(buyer, order, "send")


@pytest.mark.parametrize("role", ["warehouse", "sales", "auditor", "viewer"])
async def test_others_only_read_orders(world: World, role: str):
    order = await draft(await found_company(world, "A-1"))
    someone = world.as_(role)
    assert (await someone.post("/purchase-orders", order_of(LINE), expect=403))["needs"] == "purchase-orders:write"
    for step in TARGETS:
        await take(someone, order, step, expect=403)
    assert await someone.get(f"/purchase-orders/{order['id']}") == order
    await world.as_().get("/purchase-orders", expect=403)
    await world.anonymous().get(f"/purchase-orders/{order['id']}", expect=401)


async def test_the_database_keeps_an_order_from_being_sent_unapproved(world: World):
    order = await draft(await found_company(world, "A-1"))
    connection = await world.connect("supplier")
    try:
        with pytest.raises(Exception, match="purchase_orders_check"):
            await connection.execute("UPDATE purchase_orders SET status = 'sent' WHERE id = $1", order["id"])
    finally:
        await connection.close()


async def test_a_draft_is_refused_while_the_catalog_is_away_but_a_replay_is_not(world: World):
    manager = await found_company(world, "A-1")
    first = await manager.post("/purchase-orders", order_of(LINE), key="once")
    watch_line(world, "product-catalog-service").cut = "before"
    refused = await manager.post("/purchase-orders", order_of(LINE), key="twice", expect=503)
    assert refused["code"] == "service_unavailable"
    assert await manager.post("/purchase-orders", order_of(LINE), key="once") == first
