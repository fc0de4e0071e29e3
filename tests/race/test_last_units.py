"""The last units: exactly as many are granted as there are, and every other client is told how many were left."""

import asyncio
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from tests.inventory.stocked import check_integrity, level, stock
from tests.race.crowd import Tally, crowd
from tests.world import Api, World

LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}


async def test_sixty_four_clients_get_exactly_the_last_hundred_units(busy: World):
    api = await stock(busy, "100")
    tally = Tally()

    async def reserve() -> dict[str, Any]:
        return tally.note(await api.request("POST", "/reservations", {"lines": [LINE]}))

    bodies = await crowd([reserve] * 400, clients=64)
    tally.check("insufficient_stock")
    assert tally.answers == {(201, ""): 100, (409, "insufficient_stock"): 300}
    refused = [body for body in bodies if "code" in body]
    for body in refused:
        assert body["lines"] == [{"sku": "A-1", "warehouse": "MAIN", "requested": "1", "available": "0"}]
    now = await level(api)
    assert (now["on_hand"], now["reserved"], now["available"]) == ("100", "100", "0")
    await check_integrity(busy)


async def test_two_processes_grant_exactly_the_last_hundred_units(busy: World, twin: World):
    apis = [await stock(busy, "100"), twin.as_("manager")]
    tally = Tally()

    async def reserve(number: int) -> None:
        tally.note(await apis[number % 2].request("POST", "/reservations", {"lines": [LINE]}))

    await crowd([lambda number=number: reserve(number) for number in range(300)], clients=64)
    assert tally.answers == {(201, ""): 100, (409, "insufficient_stock"): 200}
    await check_integrity(twin)


async def test_wishes_of_several_units_are_granted_whole_or_not_at_all(busy: World):
    api = await stock(busy, "100")
    luck = random.Random(1)
    tally, granted = Tally(), [Decimal(0)]

    async def reserve(quantity: str) -> None:
        body = tally.note(await api.request("POST", "/reservations", {"lines": [LINE | {"quantity": quantity}]}))
        if "code" in body:
            (line,) = body["lines"]
            assert Decimal(line["available"]) < Decimal(quantity)
        else:
            granted[0] += Decimal(body["lines"][0]["quantity"])

    wishes = [luck.choice(("1", "2", "3", "5", "0.5", "7.25")) for _ in range(120)]
    await crowd([lambda wish=wish: reserve(wish) for wish in wishes], clients=48)
    tally.check("insufficient_stock")
    now = await level(api)
    assert Decimal(now["reserved"]) == granted[0] <= 100
    assert Decimal(now["available"]) == 100 - granted[0]
    await check_integrity(busy)


async def test_partial_wishes_share_the_last_units_and_no_more(busy: World):
    api = await stock(busy, "50")
    tally, granted = Tally(), Counter[str]()

    async def reserve() -> None:
        body = {"mode": "partial", "lines": [LINE | {"quantity": "3"}]}
        answer = tally.note(await api.request("POST", "/reservations", body))
        if "code" not in answer:
            granted[answer["lines"][0]["quantity"]] += 1

    await crowd([reserve] * 60, clients=40)
    assert granted == {"3": 16, "2": 1}
    assert tally.answers == {(201, ""): 17, (409, "insufficient_stock"): 43}
    await check_integrity(busy)


@pytest.mark.parametrize("seed", [1, 2])
async def test_lines_in_any_order_never_lock_each_other_out(busy: World, seed: int):
    """Twenty articles, some not yet known to the warehouse; each wish names some of them in an order of its own."""
    luck = random.Random(seed)
    skus = [f"S-{number:02d}" for number in range(20)]
    api = await stock(busy, "15", *skus)
    tally, granted = Tally(), Counter[str]()

    async def reserve(lines: list[dict[str, str]]) -> None:
        body = tally.note(await api.request("POST", "/reservations", {"lines": lines}))
        if "code" in body:
            assert body["lines"], body
            return
        assert [line["sku"] for line in body["lines"]] == [line["sku"] for line in lines]
        for line in lines:
            granted[line["sku"]] += int(line["quantity"])

    def wish() -> list[dict[str, str]]:
        names = [luck.choice(skus) for _ in range(luck.randint(1, 12))]
        return [{"sku": name, "warehouse": "MAIN", "quantity": luck.choice("112")} for name in names]

    wishes = [wish() for _ in range(250)]
    await crowd([lambda lines=lines: reserve(lines) for lines in wishes], clients=64)
    tally.check("insufficient_stock")
    for item in (await api.get("/stock", limit=100))["items"]:
        assert int(item["reserved"]) == granted[item["sku"]] <= 15
    await check_integrity(busy)


async def test_places_that_come_into_being_at_once_never_lock_each_other_out(busy: World):
    """Receipts into a warehouse that has never held any of the articles, in every order."""
    luck = random.Random(3)
    skus = [f"S-{number:02d}" for number in range(12)]
    api = await stock(busy, "1", *skus)
    for code in ("EAST", "WEST"):
        await api.post("/warehouses", {"code": code, "name": code})
    tally = Tally()

    async def receive() -> None:
        lines = [
            {"sku": sku, "warehouse": luck.choice(("EAST", "WEST")), "quantity": "1"} for sku in luck.sample(skus, 8)
        ]
        tally.note(await api.request("POST", "/movements", {"type": "receipt", "lines": lines}))

    await crowd([receive] * 60, clients=32)
    tally.check()
    items = (await api.get("/stock", limit=100))["items"]
    assert sum(int(item["on_hand"]) for item in items if item["warehouse"] != "MAIN") == 60 * 8
    await check_integrity(busy)


async def test_the_same_units_are_shipped_once(busy: World):
    """Thirty shippers of one each for a reservation of ten."""
    api = await stock(busy, "10")
    held = await api.post("/reservations", {"lines": [LINE | {"quantity": "10"}]})
    await api.post(f"/reservations/{held['id']}/confirm", expect=200)
    tally = Tally()

    async def ship() -> None:
        body = {"lines": [{"line": 1, "quantity": "1"}]}
        tally.note(await api.request("POST", f"/reservations/{held['id']}/consume", body))

    await crowd([ship] * 30, clients=30)
    assert sum(count for (status, _), count in tally.answers.items() if status == 201) == 10
    tally.check("over_consumed", "not_confirmed")
    assert (await level(api))["on_hand"] == "0"
    await check_integrity(busy)


async def test_the_same_goods_are_issued_once(busy: World):
    api = await stock(busy, "10")
    tally = Tally()

    async def issue() -> None:
        tally.note(await api.request("POST", "/movements", {"type": "issue", "lines": [LINE]}))

    await crowd([issue] * 40, clients=40)
    assert tally.answers == {(201, ""): 10, (409, "insufficient_stock"): 30}
    await check_integrity(busy)


async def test_a_movement_is_reversed_by_one_of_many(busy: World):
    api = await stock(busy, "10")
    movement = await api.post("/movements", {"type": "issue", "lines": [LINE | {"quantity": "4"}]})
    tally = Tally()

    async def reverse() -> None:
        tally.note(await api.request("POST", f"/movements/{movement['id']}/reverse"))

    await crowd([reverse] * 16, clients=16)
    assert tally.answers == {(201, ""): 1, (409, "already_reversed"): 15}
    assert (await level(api))["on_hand"] == "10"
    await check_integrity(busy)


async def test_a_reservation_is_confirmed_or_released_and_both_sides_know_which(busy: World):
    api = await stock(busy, "100")
    for _ in range(12):
        held = await api.post("/reservations", {"lines": [LINE]})
        answers = await asyncio.gather(
            *(api.request("POST", f"/reservations/{held['id']}/{verb}") for verb in ("confirm", "release") * 2)
        )
        final = (await api.get(f"/reservations/{held['id']}"))["status"]
        assert final == "released", "a release always succeeds in the end"
        assert all(answer.status_code in (200, 409) for answer in answers)
        for answer in answers[0::2]:
            assert answer.status_code == 200 or answer.json()["code"] == "reservation_released"
    assert (await level(api))["available"] == "100"
    await check_integrity(busy)


def manager(world: World) -> Api:
    return world.as_("manager")


async def test_a_code_is_taken_by_one_of_many(busy: World):
    tally = Tally()

    async def open_warehouse() -> None:
        tally.note(await manager(busy).request("POST", "/warehouses", {"code": "NEW", "name": "New"}))

    await crowd([open_warehouse] * 12, clients=12)
    assert tally.answers == {(201, ""): 1, (409, "code_taken"): 11}


async def test_a_name_is_changed_by_one_of_many_who_read_the_same(busy: World):
    api = await stock(busy, "1")
    tally = Tally()

    async def rename(number: int) -> None:
        body = {"name": f"Name {number}"}
        tally.note(await api.request("PATCH", "/warehouses/MAIN", body, headers={"If-Match": '"1"'}))

    await crowd([lambda number=number: rename(number) for number in range(12)], clients=12)
    assert tally.answers == {(200, ""): 1, (412, "stale_version"): 11}
