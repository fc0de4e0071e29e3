"""Shipping what is allocated, in parts or at once, and never more."""

import asyncio
from uuid import uuid4

import pytest

from tests.order.selling import amounts, check_integrity, execute, fetch, open_shop, place, receive, stock_of
from tests.world import World


def some(quantity: str, line: int = 1) -> dict:
    return {"lines": [{"line": line, "quantity": quantity}]}


async def test_everything_allocated_is_shipped_by_default(world: World):
    api = await open_shop(world, "10", "A-1", "B-2")
    order = await place(api, ("A-1", "4"), ("B-2", "2"))
    shipment = await api.post(f"/orders/{order['id']}/ship")
    assert shipment["order_id"] == order["id"]
    assert shipment["number"].startswith("SH-")
    assert shipment["lines"] == [
        {"line": 1, "sku": "A-1", "quantity": "4"},
        {"line": 2, "sku": "B-2", "quantity": "2"},
    ]
    shipped = await api.get(f"/orders/{order['id']}")
    assert (shipped["status"], amounts(shipped)) == ("shipped", {"shipped": "4"})
    assert await stock_of(api) == ("6", "0", "6")
    movement = await api.get(f"/movements/{shipment['movement_id']}")
    assert (movement["type"], movement["reference"]) == ("issue", shipment["number"])
    assert await api.get(f"/shipments/{shipment['id']}") == shipment
    await check_integrity(world)


async def test_an_order_is_shipped_in_two_parts(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "5"))
    first = await api.post(f"/orders/{order['id']}/ship", some("2"))
    half = await api.get(f"/orders/{order['id']}")
    assert (half["status"], amounts(half)) == ("partially_shipped", {"allocated": "3", "shipped": "2"})
    second = await api.post(f"/orders/{order['id']}/ship")
    assert second["lines"][0]["quantity"] == "3"
    assert (await api.get(f"/orders/{order['id']}"))["status"] == "shipped"
    assert (await api.get("/shipments", order_id=order["id"]))["items"] == [second, first]
    await check_integrity(world)


async def test_more_than_is_allocated_cannot_be_shipped(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "12"), allocate="partial")
    refused = await api.post(f"/orders/{order['id']}/ship", some("11"), expect=409)
    assert refused["code"] == "over_shipped"
    assert refused["lines"] == [{"line": 1, "requested": "11", "allocated": "10"}]
    assert amounts(await api.get(f"/orders/{order['id']}")) == {"allocated": "10", "backordered": "2"}
    assert (await api.get("/shipments"))["items"] == []


async def test_nothing_allocated_means_nothing_to_ship(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"), allocate="none")
    assert (await api.post(f"/orders/{order['id']}/ship", expect=409))["code"] == "nothing_allocated"


async def test_a_shipment_takes_from_several_reservations(world: World):
    api = await open_shop(world, "3")
    order = await place(api, ("A-1", "5"), allocate="partial")
    await receive(api, "A-1", "9")
    await api.post(f"/orders/{order['id']}/allocate", expect=200)
    shipment = await api.post(f"/orders/{order['id']}/ship", some("4"))
    assert shipment["lines"] == [{"line": 1, "sku": "A-1", "quantity": "4"}]
    assert len(set(shipment["movement_ids"])) == 2
    assert amounts(await api.get(f"/orders/{order['id']}")) == {"allocated": "1", "shipped": "4"}
    assert await stock_of(api) == ("8", "1", "7")
    await check_integrity(world)


async def test_sixteen_posts_with_one_key_ship_once(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "5"))
    path = f"/orders/{order['id']}/ship"
    answers = await asyncio.gather(*(api.post(path, some("2"), key="once") for _ in range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert await stock_of(api) == ("8", "3", "5")
    assert (await api.post(path, some("3"), key="once", expect=422))["code"] == "idempotency_key_reused"
    assert (await api.request("POST", path, some("1"), key=None)).status_code == 428


async def test_sixteen_posts_with_one_key_ship_everything_once(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "10"))
    path = f"/orders/{order['id']}/ship"
    # The first one empties the reservation, which must not look like a refusal to the others.
    answers = await asyncio.gather(*(api.post(path, key="once") for _ in range(16)))
    assert all(answer == answers[0] for answer in answers)
    assert amounts(await api.get(f"/orders/{order['id']}")) == {"shipped": "10"}
    assert await stock_of(api) == ("0", "0", "0")
    await check_integrity(world)


async def test_ten_shipments_at_once_ship_no_more_than_is_allocated(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "5"))
    path = f"/orders/{order['id']}/ship"
    answers = await asyncio.gather(*(api.request("POST", path, some("1")) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 5
    assert await stock_of(api) == ("5", "0", "5")
    await check_integrity(world)


async def test_cancelling_after_a_part_was_shipped_cancels_the_rest(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "12"), allocate="partial")
    await api.post(f"/orders/{order['id']}/ship", some("4"))
    cancelled = await api.post(f"/orders/{order['id']}/cancel", expect=200)
    assert (cancelled["status"], amounts(cancelled)) == ("shipped", {"shipped": "4", "cancelled": "8"})
    assert await stock_of(api) == ("6", "0", "6")
    assert (await api.post(f"/orders/{order['id']}/ship", expect=409))["code"] == "nothing_allocated"
    await check_integrity(world)


async def test_what_was_shipped_whole_cannot_be_cancelled(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    await api.post(f"/orders/{order['id']}/ship")
    assert (await api.post(f"/orders/{order['id']}/cancel", expect=409))["code"] == "nothing_to_cancel"


async def test_a_reservation_released_by_hand_becomes_a_back_order(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    ((reservation_id,),) = await fetch(world, "SELECT reservation_id FROM allocations")
    await api.post(f"/reservations/{reservation_id}/release", expect=200)
    assert (await api.post(f"/orders/{order['id']}/ship", some("1"), expect=409))["code"] == "not_confirmed"
    after = await api.get(f"/orders/{order['id']}")
    assert (after["status"], amounts(after)) == ("confirmed", {"backordered": "4"})
    assert (await api.post(f"/orders/{order['id']}/allocate", expect=200))["status"] == "allocated"
    await api.post(f"/orders/{order['id']}/ship")
    await check_integrity(world)


async def test_the_database_refuses_a_line_that_does_not_add_up(world: World):
    api = await open_shop(world)
    await place(api, ("A-1", "4"))
    for wrong in ("allocated = 3", "shipped = 1", "returned = 1", "being_shipped = 5"):
        with pytest.raises(Exception, match="order_lines_"):
            await execute(world, "order", f"UPDATE order_lines SET {wrong}")


async def test_history_cannot_be_deleted(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    await api.post(f"/orders/{order['id']}/ship")
    for table in ("orders", "allocations", "shipments"):
        with pytest.raises(Exception, match="is history"):
            await fetch(world, f"DELETE FROM {table}")
    for table in ("order_lines", "allocation_lines", "shipment_parts", "shipment_lines"):
        with pytest.raises(Exception, match="permission denied"):
            await fetch(world, f"DELETE FROM {table}")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"lines": []}, "/lines"),
        (some("0"), "/lines/0/quantity"),
        (some("1", line=0), "/lines/0/line"),
        (some("1", line=257), "/lines/0/line"),
        ({"lines": [{"line": "1", "quantity": "1"}]}, "/lines/0/line"),
        (some("1", line=2), "/lines/0/line"),
        ({"lines": [{"line": 1, "quantity": "1"}, {"line": 1, "quantity": "1"}]}, "/lines/1/line"),
    ],
)
async def test_it_refuses_shipments_that_make_no_sense(world: World, body: dict, pointer: str):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    refused = await api.post(f"/orders/{order['id']}/ship", body, expect=422)
    assert refused["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("role", ["sales", "purchasing", "auditor", "viewer"])
async def test_only_warehouse_people_ship(world: World, role: str):
    api = world.as_(role)
    assert (await api.post(f"/orders/{uuid4()}/ship", expect=403))["needs"] == "orders:ship"
    assert (await api.get(f"/shipments/{uuid4()}", expect=404))["code"] == "shipment_not_found"
