"""The moment at which a hold's time is over, while somebody confirms, ships, gives back, sweeps, or wants the goods."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from stockade.inventory.reservations import sweep_expired
from stockade.postgres import OWNER_ROLE
from tests.inventory.stocked import check_integrity, level, stock
from tests.race.crowd import Tally, crowd
from tests.world import Api, World

LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}


async def hold_until_now(world: World, api: Api, count: int, *, in_s: float) -> list[str]:
    """So many holds of one, all of which expire at the same moment."""
    held = [(await api.post("/reservations", {"lines": [LINE]}))["id"] for _ in range(count)]
    owner = await world.connect("inventory", role=OWNER_ROLE)
    await owner.execute(
        "UPDATE reservations SET expires_at = clock_timestamp() + make_interval(secs => $1) WHERE status = 'held'", in_s
    )
    await owner.close()
    return held


async def read_statuses(api: Api, ids: list[str]) -> dict[str, str]:
    return {each: (await api.get(f"/reservations/{each}"))["status"] for each in ids}


@pytest.mark.parametrize("verb", ["confirm", "release"])
async def test_a_hold_ends_in_one_way_whatever_comes_first(busy: World, twin: World, verb: str):
    """Tried until some were in time and some were not; a slow machine needs a later moment."""
    api = await stock(busy, "400")
    for in_s in (0.25, 0.5, 1, 2, 4):
        counted = await race_with_the_clock(busy, twin, api, verb, in_s=in_s)
        assert set(counted) <= ({"confirmed", "expired"} if verb == "confirm" else {"released", "expired"})
        if len(counted) == 2:
            break
    else:
        pytest.fail("nobody was in time, or everybody was")
    await check_integrity(busy)


async def race_with_the_clock(busy: World, twin: World, api: Api, verb: str, *, in_s: float) -> Counter[str]:
    """How forty holds ended that a verb is done to from shortly before to shortly after they expire."""
    before = await level(api)
    ids = await hold_until_now(busy, api, 40, in_s=in_s)
    tally, answered = Tally(), dict[str, Any]()

    async def act(identifier: str, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        answered[identifier] = tally.note(
            await twin.as_("manager").request("POST", f"/reservations/{identifier}/{verb}")
        )

    async def sweep() -> None:
        for _ in range(int(in_s * 2 / 0.02)):
            await busy.context("inventory-service").database.run(sweep_expired)
            await asyncio.sleep(0.02)

    await asyncio.gather(sweep(), *(act(identifier, number * in_s / 20) for number, identifier in enumerate(ids)))
    await asyncio.sleep(0.1)
    await busy.context("inventory-service").database.run(sweep_expired)
    tally.check("reservation_expired")
    final = await read_statuses(api, ids)
    for identifier, body in answered.items():
        if "code" in body:
            assert final[identifier] == "expired"
        else:
            assert final[identifier] == body["status"], "an answer is a promise"
    counted = Counter(final.values())
    now = await level(api)
    assert now["reserved"] == "0"
    assert int(now["allocated"]) - int(before["allocated"]) == counted["confirmed"]
    return counted


async def test_a_confirmed_hold_is_shipped_although_its_time_is_over(busy: World):
    api = await stock(busy, "20")
    ids = await hold_until_now(busy, api, 20, in_s=0.3)
    tally = Tally()

    async def confirm_and_ship(identifier: str) -> None:
        confirmed = tally.note(await api.request("POST", f"/reservations/{identifier}/confirm"))
        await asyncio.sleep(0.4)
        if "code" not in confirmed:
            body = {"lines": [{"line": 1, "quantity": "1"}]}
            tally.note(await api.request("POST", f"/reservations/{identifier}/consume", body))

    await crowd([lambda identifier=identifier: confirm_and_ship(identifier) for identifier in ids], clients=20)
    tally.check("reservation_expired")
    final = Counter((await read_statuses(api, ids)).values())
    assert final["confirmed"] == 0
    assert (await level(api))["on_hand"] == str(20 - final["consumed"])
    await check_integrity(busy)


async def test_what_expires_goes_to_those_who_wait_for_it_and_to_each_once(busy: World, twin: World):
    """Ten units, all held until this moment; forty clients want one each, and ask again until all are given away."""
    api = await stock(busy, "10")
    await hold_until_now(busy, api, 10, in_s=0.3)
    apis = [busy.as_("manager"), twin.as_("manager")]
    tally = Tally()

    async def want(number: int) -> None:
        for _ in range(30):
            if "id" in tally.note(await apis[number % 2].request("POST", "/reservations", {"lines": [LINE]})):
                return
            if tally.answers[201, ""] >= 10:
                return
            await asyncio.sleep(0.05)

    await asyncio.gather(*(want(number) for number in range(40)))
    tally.check("insufficient_stock")
    assert tally.answers[201, ""] == 10
    now = await level(api)
    assert (now["reserved"], now["available"]) == ("10", "0")
    await check_integrity(busy)


async def test_nobody_is_refused_for_what_has_expired_however_many_ask_at_that_moment(busy: World, twin: World):
    api = await stock(busy, "30")
    await hold_until_now(busy, api, 30, in_s=0)
    await asyncio.sleep(0.01)
    apis = [busy.as_("manager"), twin.as_("manager")]
    tally = Tally()

    async def reserve(number: int) -> None:
        tally.note(await apis[number % 2].request("POST", "/reservations", {"lines": [LINE]}))

    await crowd([lambda number=number: reserve(number) for number in range(30)], clients=30)
    assert tally.answers == {(201, ""): 30}
    await check_integrity(busy)


async def test_many_sweepers_end_each_hold_once(busy: World, twin: World):
    api = await stock(busy, "60")
    ids = await hold_until_now(busy, api, 60, in_s=0)
    databases = [world.context("inventory-service").database for world in (busy, twin)]
    swept = await asyncio.gather(*(databases[number % 2].run(sweep_expired) for number in range(12)))
    ended = Counter((await read_statuses(api, ids)).values())
    assert sum(swept) <= 60
    assert ended == {"expired": 60}
    connection = await busy.connect("inventory")
    events = await connection.fetchval("SELECT count(*) FROM outbox WHERE type = 'reservation.expired'")
    await connection.close()
    assert events == 60
    await check_integrity(busy)
