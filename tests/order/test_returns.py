"""Taking goods back: into the right status, and never more than was shipped."""

import asyncio
from uuid import uuid4

import pytest

from tests.order.selling import amounts, check_integrity, fetch, open_shop, place, stock_of
from tests.world import Api, World


def back(order_id: str, *lines: tuple[int, str, str], **more: str) -> dict:
    return {
        "order_id": order_id,
        "lines": [
            {"line": line, "quantity": quantity, "disposition": disposition} for line, quantity, disposition in lines
        ],
        **more,
    }


async def ship_ten(world: World) -> tuple[Api, str]:
    """A shop whose ten pieces were all shipped, and the order."""
    api = await open_shop(world)
    order = await place(api, ("A-1", "10"))
    await api.post(f"/orders/{order['id']}/ship")
    return api, order["id"]


async def test_goods_come_back_with_what_becomes_of_each(world: World):
    api, order_id = await ship_ten(world)
    body = back(order_id, (1, "3", "restock"), (1, "2", "quality_hold"), (1, "1", "damaged"), reason="Too green")
    returned = await api.post("/returns", body)
    assert (returned["status"], returned["reason"]) == ("posted", "Too green")
    assert [line["disposition"] for line in returned["lines"]] == ["restock", "quality_hold", "damaged"]
    # Only what was restocked can be sold.
    assert await stock_of(api) == ("6", "0", "3")
    movement = await api.get(f"/movements/{returned['movement_id']}")
    assert (movement["type"], movement["reason"], movement["reference"]) == (
        "receipt", "customer_return", returned["number"],
    )  # fmt: skip
    order = await api.get(f"/orders/{order_id}")
    assert (order["status"], amounts(order)) == ("partially_returned", {"shipped": "10", "returned": "6"})
    assert await api.get(f"/returns/{returned['id']}") == returned
    await check_integrity(world)


async def test_an_order_is_returned_when_everything_came_back(world: World):
    api, order_id = await ship_ten(world)
    first = await api.post("/returns", back(order_id, (1, "4", "restock")))
    second = await api.post("/returns", back(order_id, (1, "6", "damaged")))
    assert (await api.get(f"/orders/{order_id}"))["status"] == "returned"
    assert (await api.get("/returns", order_id=order_id))["items"] == [second, first]


async def test_more_than_was_shipped_cannot_come_back(world: World):
    api, order_id = await ship_ten(world)
    await api.post("/returns", back(order_id, (1, "4", "restock")))
    refused = await api.post("/returns", back(order_id, (1, "3", "restock"), (1, "4", "damaged")), expect=409)
    assert refused["code"] == "over_returned"
    assert refused["lines"] == [{"line": 1, "requested": "7", "returnable": "6"}]
    assert amounts(await api.get(f"/orders/{order_id}")) == {"shipped": "10", "returned": "4"}


async def test_returns_at_once_bring_back_no_more_than_was_shipped(world: World):
    api, order_id = await ship_ten(world)
    answers = await asyncio.gather(
        *(api.request("POST", "/returns", back(order_id, (1, "3", "restock"))) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert await stock_of(api) == ("9", "0", "9")
    await check_integrity(world)


async def test_the_same_key_returns_once(world: World):
    api, order_id = await ship_ten(world)
    body = back(order_id, (1, "3", "restock"))
    answers = await asyncio.gather(*(api.post("/returns", body, key="once") for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert await stock_of(api) == ("3", "0", "3")
    other = await api.post("/returns", back(order_id, (1, "2", "restock")), key="once", expect=422)
    assert other["code"] == "idempotency_key_reused"


async def test_a_receipt_that_stock_refuses_leaves_no_return(world: World):
    api, order_id = await ship_ten(world)
    body = back(order_id, (1, "3", "restock"))
    body["lines"][0]["lot"] = "L-1"  # A-1 is not tracked by lots.
    refused = await api.post("/returns", body, expect=422)
    assert refused["errors"][0]["pointer"] == "/lines/0/lot"
    assert await fetch(world, "SELECT id FROM returns") == []
    assert await fetch(world, "SELECT returned, being_returned FROM order_lines") == [(0, 0)]


async def test_it_refuses_returns_that_make_no_sense(world: World):
    api, order_id = await ship_ten(world)
    for lines, pointer in (
        ([], "/lines"),
        ([(2, "1", "restock")], "/lines/0/line"),
        ([(1, "0", "restock")], "/lines/0/quantity"),
        ([(1, "1", "burn")], "/lines/0/disposition"),
        ([(1, "1", "restock")] * 257, "/lines"),
    ):
        refused = await api.post("/returns", back(order_id, *lines), expect=422)
        assert refused["errors"][0]["pointer"] == pointer
    unknown = back(str(uuid4()), (1, "1", "restock"))
    assert (await api.post("/returns", unknown, expect=404))["code"] == "order_not_found"
    assert (await api.request("POST", "/returns", unknown, key=None)).status_code == 428
    assert (await api.get(f"/returns/{uuid4()}", expect=404))["code"] == "return_not_found"


@pytest.mark.parametrize("role", ["purchasing", "auditor", "viewer"])
async def test_only_warehouse_and_sales_people_take_goods_back(world: World, role: str):
    refused = await world.as_(role).post("/returns", back(str(uuid4()), (1, "1", "restock")), expect=403)
    assert refused["needs"] == "returns:write"
