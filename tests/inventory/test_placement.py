"""Where goods are put and taken from when nobody says exactly where, and what is known of lots."""

from typing import Any

import pytest

from tests.inventory.stocked import add_items, check_integrity, level, stock
from tests.world import Api, World

LINE = {"sku": "A-1", "warehouse": "MAIN"}


async def move(api: Api, kind: str, expect: int = 201, **line: Any) -> Any:
    head = {"type": kind} | ({"reason": "found"} if kind == "adjustment" else {})
    return await api.post("/movements", head | {"lines": [LINE | line]}, expect=expect)


async def add_location(api: Api, code: str) -> None:
    await api.post("/locations", {"warehouse": "MAIN", "code": code})


def taken_from(movement: Any) -> dict[str, str]:
    return {entry["location"]: entry["quantity"] for entry in movement["entries"] if entry["quantity"].startswith("-")}


async def test_putting_away_takes_from_everywhere_but_the_place_itself(world: World):
    api = await stock(world, "10")
    await add_location(api, "A-01")
    await move(api, "transfer", quantity="4", to_location="A-01")
    second = await move(api, "transfer", quantity="3", to_location="A-01")
    assert taken_from(second) == {"STOCK": "-3"}
    short = await move(api, "transfer", quantity="4", to_location="A-01", expect=409)
    assert (short["code"], short["lines"][0]["available"]) == ("insufficient_stock", "3")
    await check_integrity(world)


async def test_moving_from_a_place_to_itself_is_refused(world: World):
    api = await stock(world, "10")
    refused = await move(api, "transfer", quantity="1", location="STOCK", to_location="STOCK", expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("same_location", "/lines/0/to_location")


async def test_taking_from_everywhere_goes_by_the_name_of_the_place(world: World):
    api = await stock(world, "10")
    for code in ("B-01", "A-01"):
        await add_location(api, code)
        await move(api, "transfer", quantity="2", location="STOCK", to_location=code)
    assert taken_from(await move(api, "issue", quantity="5")) == {"A-01": "-2", "B-01": "-2", "STOCK": "-1"}
    await check_integrity(world)


async def test_a_status_is_changed_wherever_the_goods_are(world: World):
    api = await stock(world, "10")
    await add_location(api, "A-01")
    await move(api, "transfer", quantity="4", to_location="A-01")
    await move(api, "status_change", quantity="6", to_status="damaged")
    assert (await level(api))["sellable"] == "4"
    await check_integrity(world)


@pytest.mark.parametrize("kind", ["receipt", "adjustment"])
async def test_goods_tracked_by_lot_never_come_in_without_one(world: World, kind: str):
    api = await stock(world, "10")
    await add_items(world, "L-1", tracking="lot")
    refused = await move(api, kind, sku="L-1", quantity="5", expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("lot_required", "/lines/0/lot")
    await move(api, kind, sku="L-1", quantity="5", lot="LOT-1")
    await move(api, "adjustment", sku="L-1", quantity="-2")  # Which lot is lost, first-expired-first-out decides.
    assert (await level(api, "L-1"))["on_hand"] == "3"
    await check_integrity(world)


async def test_a_lot_that_is_not_known_cannot_be_taken_from_and_is_not_made(world: World):
    api = await stock(world, "10")
    await add_items(world, "L-1", tracking="lot")
    await move(api, "receipt", sku="L-1", quantity="5", lot="LOT-1", expires_on="2030-01-01")
    refused = await move(api, "issue", sku="L-1", quantity="1", lot="LOT-2", expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_lot", "/lines/0/lot")
    lost = await move(api, "adjustment", sku="L-1", quantity="-1", lot="LOT-2", expect=422)
    assert (lost["code"], lost["errors"][0]["pointer"]) == ("unknown_lot", "/lines/0/lot")


async def test_one_request_cannot_give_a_lot_two_dates(world: World):
    api = await stock(world, "10")
    await add_items(world, "L-1", tracking="lot")
    lines = [
        {"sku": "L-1", "warehouse": "MAIN", "quantity": "1", "lot": "LOT-1", "expires_on": date}
        for date in ("2030-01-01", "2031-01-01")
    ]
    refused = await api.post("/movements", {"type": "receipt", "lines": lines}, expect=422)
    assert refused["code"] == "lot_expiry_differs"
    await move(api, "receipt", sku="L-1", quantity="1", lot="LOT-1", expires_on="2031-01-01")
