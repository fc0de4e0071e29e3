"""The second wall: with every lock and every check taken out of the Python, the database alone still prevents overselling.

What the database refuses is then an unexpected error of ours, so a client may see 500; what it must never see is a promise
that cannot be kept, and the books must hold whatever happens.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import pytest

from stockade.inventory import ledger, reservations
from stockade.inventory.items import Place, find_places
from stockade.inventory.ledger import NO_LOT, Bin, Books, Entry, Key, Level, MovementHead, open_books, write_movement
from stockade.inventory.warehouses import find_locations
from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from tests.inventory.stocked import check_integrity, level, stock
from tests.race.crowd import crowd
from tests.world import World

LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}


def grant_everything(
    levels: dict[Key, Level], places: Sequence[Place], wanted: Sequence[Decimal], *, partial: bool
) -> list[Decimal]:
    for place, quantity in zip(places, wanted, strict=True):
        levels[place.key].reserved += quantity
    return list(wanted)


async def read_without_locking(connection: Connection, places: Iterable[Place]) -> dict[Key, Level]:
    keys = sorted({place.key for place in places})
    rows = await connection.fetch(
        """
        SELECT item_id, warehouse_id, on_hand, sellable, reserved, allocated
          FROM stock_levels JOIN unnest($1::uuid[], $2::uuid[]) AS k (item_id, warehouse_id) USING (item_id, warehouse_id)
        """,
        [item for item, _ in keys], [warehouse for _, warehouse in keys],
    )  # fmt: skip
    return {
        (row["item_id"], row["warehouse_id"]): Level(row["on_hand"], row["sellable"], row["reserved"], row["allocated"])
        for row in rows
    }


@pytest.fixture
def take_guards_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Leaves the inventory-service without its locks on stock levels and without its checks of what is available."""

    def take_away() -> None:
        monkeypatch.setattr(reservations, "_decide", grant_everything)
        monkeypatch.setattr(Books, "check_promises", lambda *_: None)
        for module in (ledger, reservations):
            monkeypatch.setattr(module, "lock_levels", read_without_locking)

    return take_away


async def test_reservations_without_a_check_are_not_granted_beyond_what_is_there(
    busy: World, take_guards_away: Callable[[], None]
):
    api = await stock(busy, "100")
    take_guards_away()

    async def reserve() -> int:
        return (await api.request("POST", "/reservations", {"lines": [LINE]})).status_code

    statuses = Counter(await crowd([reserve] * 300, clients=64))
    assert statuses[201] == 100, statuses
    assert set(statuses) == {201, 500}
    now = await level(api)
    assert (now["reserved"], now["available"]) == ("100", "0")
    await check_integrity(busy)


async def test_no_mix_of_verbs_without_locks_corrupts_the_books(busy: World, take_guards_away: Callable[[], None]):
    luck = random.Random(1)
    skus = ("A-1", "B-1")
    api = await stock(busy, "40", *skus)
    await api.post("/warehouses", {"code": "EAST", "name": "East"})
    await api.post(
        "/movements", {"type": "receipt", "lines": [LINE | {"sku": sku, "warehouse": "EAST"} for sku in skus]}
    )
    take_guards_away()
    held: list[str] = []

    def line(**more: str) -> dict[str, str]:
        return LINE | {"sku": luck.choice(skus), "quantity": luck.choice("1235")} | more

    async def reserve() -> Any:
        answer = await api.request("POST", "/reservations", {"lines": [line()]})
        if answer.status_code == 201:
            held.append(answer.json()["id"])
        return answer

    async def move(kind: str, **more: str) -> Any:
        body = {"type": kind, "reason": "found", "lines": [line(**more)]}
        return await api.request("POST", "/movements", body)

    async def end() -> Any:
        if not held:
            return await reserve()
        path, verb = f"/reservations/{luck.choice(held)}", luck.choice(("confirm", "release", "consume"))
        body = {"lines": [{"line": 1, "quantity": "1"}]} if verb == "consume" else None
        return await api.request("POST", f"{path}/{verb}", body)

    steps = [
        reserve, reserve, end, end, lambda: move("issue"), lambda: move("receipt"), lambda: move("adjustment", quantity="-2"),
        lambda: move("transfer", to_warehouse="EAST"), lambda: move("transfer", warehouse="EAST", to_warehouse="MAIN"),
        lambda: move("status_change", to_status="damaged"),
    ]  # fmt: skip
    answers = await crowd([luck.choice(steps) for _ in range(150)], clients=16)
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[200] + statuses[201] > 40, statuses
    for item in (await api.get("/stock"))["items"]:
        assert Decimal(item["available"]) >= 0, item
    await check_integrity(busy)


async def test_nothing_is_taken_from_a_place_that_never_had_anything(busy: World):
    """Planned past `Books.add`, which would have refused it."""
    api = await stock(busy, "10")
    await api.post("/locations", {"warehouse": "MAIN", "code": "A-01"})

    async def take(connection: Connection) -> None:
        (place,) = await find_places(connection, ["A-1"], ["MAIN"])
        locations = await find_locations(connection, warehouses=[place.warehouse_id], codes=["A-01"])
        books = await open_books(connection, [place])
        for code, quantity in (("A-01", Decimal(-5)), ("@customer", Decimal(5))):
            bin = Bin(locations[place.warehouse_id, code], NO_LOT, "sellable", code == "A-01")
            books.entries.append(Entry(1, place, bin, quantity, None))
        head = MovementHead("issue", Actor("test", "service", frozenset()))
        await write_movement(connection, books, head)

    with pytest.raises(AssertionError, match="never had anything"):
        await busy.context("inventory-service").database.run(take)
    assert (await level(api))["on_hand"] == "10"
    await check_integrity(busy)
