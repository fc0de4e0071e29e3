"""The same key in flight many times: one effect, and the same answer for everybody, even for the last unit there is."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.inventory.stocked import check_integrity, level, stock
from tests.race.crowd import crowd
from tests.world import Api, World

LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}


async def repeat(send: Callable[[], Awaitable[httpx2.Response]], times: int = 16) -> Any:
    """Send it so often at once; every answer must be the same success."""
    answers = await crowd([send] * times, clients=times)
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers]
    assert len({answer.content for answer in answers}) == 1
    firsts = [answer for answer in answers if "idempotent-replay" not in answer.headers]
    assert len(firsts) == 1
    return answers[0].json()


def sender(worlds: list[World], path: str, body: Any, key: str) -> Callable[[], Awaitable[httpx2.Response]]:
    """The same request of the same person to one process and to the other, in turn."""
    apis = [world.as_("manager", subject="ann") for world in worlds]
    turn = [0]

    async def send() -> httpx2.Response:
        turn[0] += 1
        return await apis[turn[0] % len(apis)].request("POST", path, body, key=key)

    return send


async def test_the_last_unit_is_reserved_once_and_everybody_gets_it(busy: World, twin: World):
    await stock(busy, "1")
    held = await repeat(sender([busy, twin], "/reservations", {"lines": [LINE]}, "last"))
    assert held["status"] == "held"
    assert (await level(busy.as_("viewer")))["reserved"] == "1"
    await check_integrity(busy)


async def test_the_last_unit_is_issued_once_and_everybody_gets_it(busy: World, twin: World):
    await stock(busy, "1")
    await repeat(sender([busy, twin], "/movements", {"type": "issue", "lines": [LINE]}, "last"))
    assert (await level(busy.as_("viewer")))["on_hand"] == "0"
    await check_integrity(busy)


async def held_and_confirmed(api: Api) -> str:
    held = await api.post("/reservations", {"lines": [LINE]})
    await api.post(f"/reservations/{held['id']}/confirm", expect=200)
    return held["id"]


async def test_a_shipment_leaves_once_and_everybody_gets_it(busy: World, twin: World):
    api = await stock(busy, "5")
    path = f"/reservations/{await held_and_confirmed(api)}/consume"
    await repeat(sender([busy, twin], path, {"lines": [{"line": 1, "quantity": "1"}]}, "ship"))
    assert (await level(api))["on_hand"] == "4"
    await check_integrity(busy)


async def test_a_reversal_is_made_once_and_everybody_gets_it(busy: World, twin: World):
    api = await stock(busy, "5")
    issue = await api.post("/movements", {"type": "issue", "lines": [LINE]})
    await repeat(sender([busy, twin], f"/movements/{issue['id']}/reverse", None, "undo"))
    assert (await level(api))["on_hand"] == "5"
    await check_integrity(busy)


@pytest.mark.parametrize("verb", ["confirm", "release"])
async def test_a_step_of_a_reservation_is_taken_once_and_everybody_gets_it(busy: World, twin: World, verb: str):
    api = await stock(busy, "5")
    held = await api.post("/reservations", {"lines": [LINE]})
    await repeat(sender([busy, twin], f"/reservations/{held['id']}/{verb}", None, verb))
    await check_integrity(busy)


async def test_a_code_is_taken_once_and_everybody_gets_it(busy: World, twin: World):
    await repeat(sender([busy, twin], "/warehouses", {"code": "NEW", "name": "New"}, "open"))
    assert len((await busy.as_("viewer").get("/warehouses"))["items"]) == 1


async def test_two_wishes_under_one_key_are_one_wish_and_one_refusal(busy: World, twin: World):
    """Half of the clients ask for something else under the same key."""
    await stock(busy, "50")
    wishes = [
        sender([busy, twin], "/reservations", {"lines": [LINE | {"quantity": quantity}]}, "shared") for quantity in "12"
    ]
    answers = await crowd([wishes[number % 2] for number in range(24)], clients=24)
    granted = {answer.content for answer in answers if answer.status_code == 201}
    refused = {answer.json()["code"] for answer in answers if answer.status_code != 201}
    assert (len(granted), refused) == (1, {"idempotency_key_reused"})
    assert (await level(busy.as_("viewer")))["reserved"] in ("1", "2")
    await check_integrity(busy)


async def test_a_bulk_that_is_sent_twice_at_once_has_one_effect(busy: World, twin: World):
    await stock(busy, "20")
    body = {"reservations": [{"key": f"k{number}", "lines": [LINE]} for number in range(30)]}
    apis = [world.as_("manager", subject="ann") for world in (busy, twin)]
    answers = await crowd(
        [lambda api=api: api.request("POST", "/reservations/bulk", body, key=None) for api in apis * 2], clients=4
    )
    outcomes = [answer.json()["results"] for answer in answers]
    granted = {
        number: {result["reservation"]["id"] for results in outcomes if (result := results[number])["reservation"]}
        for number in range(30)
    }
    assert all(len(ids) <= 1 for ids in granted.values())
    assert sum(len(ids) for ids in granted.values()) == 20
    assert {result["status"] for results in outcomes for result in results} <= {201, 409}
    assert (await level(busy.as_("viewer")))["reserved"] == "20"
    await check_integrity(busy)
