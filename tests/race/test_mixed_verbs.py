"""Every verb at once, at random: no failure of ours, no deadlock that a client would see, and books without a flaw."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from stockade.inventory.reservations import sweep_expired
from stockade.kit.metrics import TRANSACTION_RETRIES
from tests.inventory.stocked import check_integrity, stock
from tests.race.crowd import Tally, crowd
from tests.world import Api, World

WAREHOUSES = ("MAIN", "EAST")
SKUS = tuple(f"S-{number}" for number in range(6))
REFUSALS = (
    "insufficient_stock", "already_reversed", "is_reversal", "reservation_expired", "reservation_released", "not_confirmed",
    "over_consumed",
)  # fmt: skip


@dataclass
class Market:
    """What the clients of one race know together: the reservations and movements that there are."""

    apis: list[Api]
    luck: random.Random
    tally: Tally = field(default_factory=Tally)
    reservations: list[str] = field(default_factory=list[str])
    movements: list[str] = field(default_factory=list[str])
    kinds: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    async def post(self, kind: str, path: str, body: Any = None) -> Any:
        api = self.luck.choice(self.apis)
        began = time.monotonic()
        answer = await api.request("POST", path, body)
        assert time.monotonic() - began < 15, f"{kind} waited for somebody who waited for it"
        document = self.tally.note(answer)
        self.kinds[kind, answer.status_code] += 1
        return document if answer.status_code < 300 else None

    def lines(self, count: int = 3, **more: Any) -> list[dict[str, str]]:
        return [
            {"sku": sku, "warehouse": self.luck.choice(WAREHOUSES), "quantity": self.luck.choice(("1", "2", "0.5"))}
            | more
            for sku in self.luck.choices(SKUS, k=self.luck.randint(1, count))
        ]

    async def reserve(self) -> None:
        mode = self.luck.choice(("all", "all", "partial"))
        body = {"lines": self.lines(5), "mode": mode, "expires_in_s": self.luck.choice((1, 1, 900))}
        if made := await self.post("reserve", "/reservations", body):
            self.reservations.append(made["id"])

    async def on_a_reservation(self) -> None:
        if not self.reservations:
            return await self.reserve()
        path = f"/reservations/{self.luck.choice(self.reservations[-40:])}"
        verb = self.luck.choice(("confirm", "confirm", "release", "consume", "consume"))
        body = {"lines": [{"line": 1, "quantity": self.luck.choice(("1", "0.5"))}]} if verb == "consume" else None
        done = await self.post(verb, f"{path}/{verb}", body)
        if done and verb == "consume":
            self.movements.append(done["movement_id"])
        return None

    async def move(self, kind: str, **more: Any) -> None:
        lines = self.lines(**more)
        if kind == "transfer":
            for line in lines:
                line["to_warehouse"] = "EAST" if line["warehouse"] == "MAIN" else "MAIN"
        head = {"type": kind} | ({"reason": "shrinkage"} if kind == "adjustment" else {})
        if made := await self.post(kind, "/movements", head | {"lines": lines}):
            self.movements.append(made["id"])

    async def reverse(self) -> None:
        if self.movements:
            await self.post("reverse", f"/movements/{self.luck.choice(self.movements[-40:])}/reverse")

    async def step(self) -> None:
        pick = self.luck.randrange(100)
        if pick < 25:
            await self.reserve()
        elif pick < 55:
            await self.on_a_reservation()
        elif pick < 67:
            await self.move("receipt")
        elif pick < 74:
            await self.move("issue")
        elif pick < 79:
            await self.move("adjustment", quantity=self.luck.choice(("-1", "1")))
        elif pick < 90:
            await self.move("transfer")
        elif pick < 94:
            await self.move("status_change", to_status="damaged")
        else:
            await self.reverse()


async def open_market(worlds: list[World], seed: int) -> Market:
    api = await stock(worlds[0], "20", *SKUS)
    await api.post("/warehouses", {"code": "EAST", "name": "East"})
    return Market([world.as_("manager") for world in worlds], random.Random(seed))


def count_deadlocks() -> float:
    samples = (sample for metric in TRANSACTION_RETRIES.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


@pytest.mark.parametrize("seed", [1, 2])
async def test_two_processes_do_everything_at_once(busy: World, twin: World, seed: int):
    market = await open_market([busy, twin], seed)
    database = busy.context("inventory-service").database
    over = asyncio.Event()

    async def sweep() -> None:
        while not over.is_set():
            await database.run(sweep_expired)
            await asyncio.sleep(0.05)

    sweeping = asyncio.create_task(sweep())
    retries = count_deadlocks()
    await crowd([market.step] * 700, clients=32)
    over.set()
    await sweeping
    market.tally.check(*REFUSALS)
    done = {kind for kind, status in market.kinds if status < 300}
    assert done >= {
        "reserve", "confirm", "release", "consume", "receipt", "issue", "adjustment", "transfer", "status_change", "reverse",
    }, market.kinds  # fmt: skip
    # Locks are taken in one order, so a deadlock is a mistake even though it would be run again.
    assert count_deadlocks() - retries == 0
    await check_integrity(busy)


async def test_transfers_in_both_directions_do_not_wait_for_each_other(busy: World):
    market = await open_market([busy], 3)
    api = market.apis[0]
    for sku in SKUS:
        line = {"sku": sku, "warehouse": "EAST", "quantity": "20"}
        await api.post("/movements", {"type": "receipt", "lines": [line]})
    retries = count_deadlocks()

    async def transfer(source: str, target: str) -> None:
        skus = market.luck.sample(SKUS, 4)
        lines = [{"sku": sku, "warehouse": source, "to_warehouse": target, "quantity": "1"} for sku in skus]
        await market.post("transfer", "/movements", {"type": "transfer", "lines": lines})

    ways = [("MAIN", "EAST"), ("EAST", "MAIN")] * 60
    await crowd([lambda way=way: transfer(*way) for way in ways], clients=32)
    market.tally.check("insufficient_stock")
    assert count_deadlocks() - retries == 0
    for item in (await api.get("/stock", limit=100))["items"]:
        assert float(item["on_hand"]) <= 40
    totals = [(await api.get(f"/stock/{sku}"))["on_hand"] for sku in SKUS]
    assert totals == ["40"] * len(SKUS)
    await check_integrity(busy)
