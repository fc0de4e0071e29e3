"""Placing orders: what is promised, what waits, and what is refused."""

import asyncio
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from tests.order.selling import amounts, check_integrity, fetch, open_shop, order_of, place, receive, stock_of
from tests.world import World


async def test_an_order_is_allocated_whole(world: World):
    api = await open_shop(world, "10", "A-1", "B-2")
    order = await place(api, ("A-1", "4"), ("B-2", "2.5"), reference="PO 7")
    assert order["status"] == "allocated"
    assert order["number"].startswith("SO-")
    assert (order["warehouse"], order["customer"], order["reference"]) == ("MAIN", None, "PO 7")
    assert [line["line"] for line in order["lines"]] == [1, 2]
    assert amounts(order, 2) == {"allocated": "2.5"}
    assert await stock_of(api) == ("10", "4", "6")
    assert await api.get(f"/orders/{order['id']}") == order
    await check_integrity(world)


async def test_an_order_that_stock_cannot_fill_leaves_nothing(world: World):
    api = await open_shop(world, "10", "A-1", "B-2")
    refused = await place(api, ("A-1", "4"), ("B-2", "11"), expect=409, key="again")
    assert refused["code"] == "insufficient_stock"
    assert refused["lines"] == [{"sku": "B-2", "warehouse": "MAIN", "requested": "11", "available": "10"}]
    assert (await api.get("/orders"))["items"] == []
    assert await fetch(world, "SELECT id FROM orders") == []
    assert await stock_of(api) == ("10", "0", "10")
    await receive(api, "B-2", "1")
    # A refusal keeps nothing, so the key is free for the same request.
    assert (await place(api, ("A-1", "4"), ("B-2", "11"), key="again"))["status"] == "allocated"


async def test_a_partial_order_takes_what_is_there_and_waits_for_the_rest(world: World):
    api = await open_shop(world, "10", "A-1", "B-2")
    order = await place(api, ("A-1", "4"), ("B-2", "12"), allocate="partial")
    assert order["status"] == "partially_allocated"
    assert amounts(order, 1) == {"allocated": "4"}
    assert amounts(order, 2) == {"allocated": "10", "backordered": "2"}
    await check_integrity(world)


async def test_a_partial_order_of_nothing_available_is_all_back_order(world: World):
    api = await open_shop(world, "0")
    order = await place(api, ("A-1", "4"), allocate="partial")
    assert (order["status"], amounts(order)) == ("confirmed", {"backordered": "4"})


async def test_an_order_may_wait_without_allocation(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"), allocate="none")
    assert (order["status"], amounts(order)) == ("confirmed", {"backordered": "4"})
    assert await stock_of(api) == ("10", "0", "10")


async def test_back_orders_are_allocated_when_stock_has_come(world: World):
    api = await open_shop(world, "3")
    order = await place(api, ("A-1", "10"), allocate="partial")
    unchanged = await api.post(f"/orders/{order['id']}/allocate", expect=200)
    assert amounts(unchanged) == {"allocated": "3", "backordered": "7"}
    await receive(api, "A-1", "4")
    some = await api.post(f"/orders/{order['id']}/allocate", expect=200)
    assert (some["status"], amounts(some)) == ("partially_allocated", {"allocated": "7", "backordered": "3"})
    await receive(api, "A-1", "100")
    allocated = await api.post(f"/orders/{order['id']}/allocate", expect=200, key="k")
    assert (allocated["status"], amounts(allocated)) == ("allocated", {"allocated": "10"})
    assert await api.post(f"/orders/{order['id']}/allocate", expect=200, key="k") == allocated
    await check_integrity(world)


async def test_it_chooses_the_warehouse_that_can_fill_the_order(world: World):
    api = await open_shop(world, "5", "A-1", "B-2")
    await api.post("/warehouses", {"code": "NORTH", "name": "North"})
    await receive(api, "A-1", "6", "NORTH")
    lines = [{"sku": "A-1", "quantity": "6"}]
    assert (await api.post("/orders", {"lines": lines}))["warehouse"] == "NORTH"
    lines = [{"sku": "A-1", "quantity": "2"}, {"sku": "B-2", "quantity": "9"}]
    assert (await api.post("/orders", {"lines": lines, "allocate": "partial"}))["warehouse"] == "MAIN"


async def test_it_chooses_some_warehouse_when_none_has_any_and_refuses_when_there_is_none(world: World):
    api = world.as_("manager")
    await api.post("/products", {"sku": "A-1", "name": "A", "unit": "each"})
    body = {"lines": [{"sku": "A-1", "quantity": "6"}], "allocate": "none"}
    refused = await api.post("/orders", body, expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("no_warehouse", "/warehouse")
    await api.post("/warehouses", {"code": "MAIN", "name": "Main"})
    assert (await api.post("/orders", body))["warehouse"] == "MAIN"


@pytest.mark.parametrize("allocate", ["all", "partial", "none"])
async def test_unknown_skus_are_refused_where_they_stand(world: World, allocate: str):
    api = await open_shop(world)
    refused = await place(api, ("A-1", "1"), ("NOPE", "1"), allocate=allocate, expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_sku", "/lines/1/sku")
    assert await fetch(world, "SELECT id FROM orders") == []


async def test_an_unknown_warehouse_or_customer_is_refused(world: World):
    api = await open_shop(world)
    refused = await place(api, ("A-1", "1"), warehouse="NOPE", expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_warehouse", "/warehouse")
    refused = await place(api, ("A-1", "1"), customer="NOPE", expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_customer", "/customer")


async def test_the_same_key_gives_the_same_answer_and_refuses_another_body(world: World):
    api = await open_shop(world)
    first = await api.request("POST", "/orders", order_of(("A-1", "4")), key="k")
    again = await api.request("POST", "/orders", order_of(("A-1", "4")), key="k")
    assert first.text == again.text
    assert again.headers["Idempotent-Replay"] == "true"
    other = await place(api, ("A-1", "5"), key="k", expect=422)
    assert other["code"] == "idempotency_key_reused"
    missing = await api.request("POST", "/orders", order_of(("A-1", "4")), key=None)
    assert missing.status_code == 428


async def test_sixteen_posts_with_one_key_at_once_make_one_order(world: World):
    api = await open_shop(world)
    answers = await asyncio.gather(*(place(api, ("A-1", "4"), key="once") for _ in range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert len((await api.get("/orders"))["items"]) == 1
    assert await stock_of(api) == ("10", "4", "6")
    await check_integrity(world)


async def test_sixteen_posts_with_one_key_for_all_of_the_stock_are_one_order(world: World):
    api = await open_shop(world)
    # The first one takes everything, which must not look like a refusal to the others.
    answers = await asyncio.gather(*(place(api, ("A-1", "10"), key="once") for _ in range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert await stock_of(api) == ("10", "10", "0")
    await check_integrity(world)


async def test_sixteen_refused_posts_with_one_key_are_all_refused(world: World):
    api = await open_shop(world)
    answers = await asyncio.gather(*(place(api, ("A-1", "11"), key="once", expect=409) for _ in range(16)))
    assert {answer["code"] for answer in answers} == {"insufficient_stock"}
    assert await fetch(world, "SELECT id FROM orders") == []
    assert await fetch(world, "SELECT key FROM idempotency_keys") == []


async def test_twenty_orders_at_once_for_ten_units_get_exactly_ten(world: World):
    api = await open_shop(world)
    bodies = [order_of(("A-1", "1")) for _ in range(20)]
    answers = await asyncio.gather(*(api.request("POST", "/orders", body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [409] * 10
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert all(answer["lines"][0]["available"] == "0" for answer in refused)
    assert await stock_of(api) == ("10", "10", "0")
    assert len(await fetch(world, "SELECT id FROM orders")) == 10
    await check_integrity(world)


async def test_cancelling_gives_the_stock_back_and_may_be_repeated(world: World):
    api = await open_shop(world, "10", "A-1", "B-2")
    order = await place(api, ("A-1", "4"), ("B-2", "12"), allocate="partial")
    cancelled = await api.post(f"/orders/{order['id']}/cancel", expect=200)
    assert (cancelled["status"], amounts(cancelled, 2)) == ("cancelled", {"cancelled": "12"})
    assert await stock_of(api) == ("10", "0", "10")
    assert await api.post(f"/orders/{order['id']}/cancel", expect=200) == cancelled
    assert await fetch(world, "SELECT step FROM allocations") == [("released",)]
    await check_integrity(world)


async def test_orders_are_listed_newest_first_and_by_status_and_customer(world: World):
    api = await open_shop(world)
    await api.post("/customers", {"code": "ACME", "name": "Acme"})
    placed = [(await place(api, ("A-1", "1"), customer="ACME"))["id"] for _ in range(3)]
    waiting = (await place(api, ("A-1", "1"), allocate="none"))["id"]
    first = await api.get("/orders", limit=3)
    second = await api.get("/orders", limit=3, cursor=first["next"])
    assert [item["id"] for item in first["items"] + second["items"]] == [waiting, *reversed(placed)]
    assert second["next"] is None
    assert "lines" not in first["items"][0]
    assert [item["id"] for item in (await api.get("/orders", status="confirmed"))["items"]] == [waiting]
    assert [item["id"] for item in (await api.get("/orders", customer="ACME"))["items"]] == placed[::-1]
    assert (await api.get("/orders", customer="NOBODY"))["items"] == []
    await api.get("/orders", expect=422, status="placing")


async def test_orders_are_counted_by_status(world: World):
    api = await open_shop(world)
    statuses = ("allocated", "confirmed", "refused", "shipped", "cancelled")
    before = {status: count_orders(status) for status in statuses}
    order = await place(api, ("A-1", "4"))
    await place(api, ("A-1", "40"), expect=409)
    await api.post(f"/orders/{order['id']}/ship")
    waiting = await place(api, ("A-1", "40"), allocate="none")
    await api.post(f"/orders/{waiting['id']}/cancel", expect=200)
    assert {status: count_orders(status) - before[status] for status in statuses} == dict.fromkeys(statuses, 1)


def count_orders(status: str) -> int:
    return int(REGISTRY.get_sample_value("stockade_orders_total", {"status": status}) or 0)


async def test_events_tell_what_happened_in_order(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    await place(api, ("A-1", "40"), expect=409)
    await api.post(f"/orders/{order['id']}/ship", {"lines": [{"line": 1, "quantity": "1"}]})
    await api.post(
        "/returns", {"order_id": order["id"], "lines": [{"line": 1, "quantity": "1", "disposition": "restock"}]}
    )
    await api.post(f"/orders/{order['id']}/cancel", expect=200)
    events = await fetch(world, "SELECT type, subject, data FROM outbox ORDER BY position")
    assert [kind for kind, _, _ in events] == [
        "order.placed", "order.allocated", "order.shipped", "order.returned", "order.cancelled",
    ]  # fmt: skip
    assert {subject for _, subject, _ in events} == {order["id"]}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"lines": []}, "/lines"),
        ({"lines": [{"sku": "A-1", "quantity": "1"}] * 257}, "/lines"),
        ({"lines": [{"sku": "A-1", "quantity": "0"}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "A-1", "quantity": "-1"}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "A-1", "quantity": "1.0000001"}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "A-1", "quantity": 1}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "A-1", "quantity": "1", "unit_price": "-1"}]}, "/lines/0/unit_price"),
        ({"lines": [{"sku": "A 1", "quantity": "1"}]}, "/lines/0/sku"),
        ({"allocate": "some"}, "/allocate"),
        ({"priority": 10}, "/priority"),
        ({"reference": ""}, "/reference"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_it_refuses_orders_that_make_no_sense(world: World, change: dict, pointer: str):
    refused = await world.as_("sales").post("/orders", order_of(("A-1", "1")) | change, expect=422)
    assert refused["errors"][0]["pointer"] == pointer


async def test_unknown_orders_and_cursors_are_refused(world: World):
    api = world.as_("manager")
    unknown = f"/orders/{uuid4()}"
    for verb, body in (("ship", None), ("cancel", None), ("allocate", None)):
        assert (await api.post(f"{unknown}/{verb}", body, expect=404))["code"] == "order_not_found"
    assert (await api.get(unknown, expect=404))["code"] == "order_not_found"
    await api.get("/orders/nothing", expect=422)
    for names in ("orders", "customers", "shipments", "returns"):
        assert (await api.get(f"/{names}", expect=422, cursor="%%%"))["code"] == "unknown_cursor"
        await api.get(f"/{names}", expect=422, limit=1001)


@pytest.mark.parametrize("role", ["warehouse", "purchasing", "auditor", "viewer"])
async def test_only_sales_people_place_cancel_and_allocate(world: World, role: str):
    api = world.as_(role)
    assert (await place(api, ("A-1", "1"), expect=403))["needs"] == "orders:write"
    assert (await api.post(f"/orders/{uuid4()}/cancel", expect=403))["needs"] == "orders:write"
    assert (await api.post(f"/orders/{uuid4()}/allocate", expect=403))["needs"] == "orders:write"
    assert (await api.get("/orders"))["items"] == []
    assert (await world.anonymous().get("/orders", expect=401))["code"] == "unauthenticated"
