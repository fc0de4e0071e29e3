"""The ledger against a model of a few dictionaries: after every step of a random day both say the same."""

import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import validate

from stockade.kit.ids import uuid7
from stockade.kit.shapes import plain
from tests.conftest import ServerThread
from tests.inventory.stocked import add_items, check_integrity
from tests.lasting import lasting_world
from tests.world import Api, World

ZERO = Decimal(0)
STATUSES = ("sellable", "quality_hold", "quarantined", "damaged")
BOUNDED = settings(
    derandomize=True,
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Cell = tuple[str, str, str, str]
"""SKU, warehouse, location and status: where the model counts goods."""


@dataclass
class Hold:
    id: str
    status: str
    lines: list[list[Any]]
    """SKU, warehouse, and what is left."""


@dataclass
class Posted:
    id: str
    occurred_at: datetime
    changes: dict[Cell, Decimal]
    is_reversal: bool = False
    is_reversed: bool = False


@dataclass
class Model:
    """What should be: goods by cell, and open holds."""

    goods: dict[Cell, Decimal] = field(default_factory=dict[Cell, Decimal])
    holds: list[Hold] = field(default_factory=list[Hold])
    movements: list[Posted] = field(default_factory=list[Posted])

    def on_hand(
        self, sku: str, warehouse: str, status: str | None = None, changes: dict[Cell, Decimal] | None = None
    ) -> Decimal:
        counted = self.goods if changes is None else changes
        return sum(
            (
                quantity
                for cell, quantity in counted.items()
                if cell[:2] == (sku, warehouse) and status in (None, cell[3])
            ),
            ZERO,
        )

    def promised(self, sku: str, warehouse: str, *statuses: str) -> Decimal:
        return sum(
            (
                line[2]
                for hold in self.holds
                if hold.status in statuses
                for line in hold.lines
                if line[:2] == [sku, warehouse]
            ),
            ZERO,
        )

    def available(self, sku: str, warehouse: str) -> Decimal:
        return self.on_hand(sku, warehouse, "sellable") - self.promised(
            sku, warehouse, "held", "confirmed", "partially_consumed"
        )

    def allows(self, changes: dict[Cell, Decimal]) -> bool:
        """Whether no cell and nothing available would be negative."""
        after = {cell: self.goods.get(cell, ZERO) + quantity for cell, quantity in changes.items()}
        if any(quantity < 0 for quantity in after.values()):
            return False
        places = {cell[:2] for cell in changes}
        return all(self.available(*place) + self.on_hand(*place, "sellable", changes) >= 0 for place in places)

    def apply(self, changes: dict[Cell, Decimal]) -> None:
        for cell, quantity in changes.items():
            self.goods[cell] = self.goods.get(cell, ZERO) + quantity

    def pick(
        self, sku: str, warehouse: str, status: str, quantity: Decimal, *, beside: str | None = None
    ) -> dict[Cell, Decimal] | None:
        """What is taken from where when nobody says: by the name of the location."""
        taken: dict[Cell, Decimal] = {}
        for cell in sorted(self.goods):
            if (cell[0], cell[1], cell[3]) == (sku, warehouse, status) and cell[2] != beside and quantity > 0:
                part = min(self.goods[cell], quantity)
                if part > 0:
                    taken[cell] = part
                    quantity -= part
        return taken if quantity == 0 else None


@dataclass
class Day:
    """A random day of one world, beside its model. The names are the day's own, so that days do not meet."""

    api: Api
    luck: random.Random
    skus: list[str]
    warehouses: list[str]
    model: Model = field(default_factory=Model)
    steps: int = 0
    refused: int = 0

    async def prepare(self, world: World) -> None:
        await add_items(world, *self.skus)
        for warehouse in self.warehouses:
            await self.api.post("/warehouses", {"code": warehouse, "name": warehouse})
            await self.api.post("/locations", {"warehouse": warehouse, "code": "A-01"})

    def quantity(self) -> Decimal:
        return Decimal(self.luck.choice(("1", "2", "3", "5", "0.5", "1.25", "0.000001", "7")))

    def place(self) -> tuple[str, str]:
        return self.luck.choice(self.skus), self.luck.choice(self.warehouses)

    async def post(
        self, kind: str, lines: list[dict[str, Any]], changes: dict[Cell, Decimal] | None, **head: Any
    ) -> None:
        """A movement that must succeed exactly if the model allows it."""
        allowed = changes is not None and self.model.allows(changes)
        answer = await self.api.request("POST", "/movements", {"type": kind, "lines": lines} | head)
        assert answer.status_code == (201 if allowed else 409), (kind, lines, self.model.goods, answer.text)
        if not allowed:
            assert answer.json()["code"] == "insufficient_stock"
            self.refused += 1
            return
        assert changes is not None
        movement = answer.json()
        self.model.apply(changes)
        self.model.movements.append(Posted(movement["id"], datetime.fromisoformat(movement["occurred_at"]), changes))
        moved: dict[Cell, Decimal] = {}
        for entry in movement["entries"]:
            if not entry["location"].startswith("@"):
                cell = (entry["sku"], entry["warehouse"], entry["location"], entry["status"])
                moved[cell] = moved.get(cell, ZERO) + Decimal(entry["quantity"])
        assert {cell: each for cell, each in moved.items() if each} == {
            cell: each for cell, each in changes.items() if each
        }

    async def receive(self) -> None:
        (sku, warehouse), quantity, status = self.place(), self.quantity(), self.luck.choice(STATUSES)
        location = self.luck.choice(("STOCK", "A-01"))
        head = {}
        if self.luck.random() < 0.5:
            head["occurred_at"] = (datetime.now(UTC) - timedelta(seconds=self.luck.randrange(100_000))).isoformat()
        line = {"sku": sku, "warehouse": warehouse, "location": location, "status": status, "quantity": plain(quantity)}
        await self.post("receipt", [line], {(sku, warehouse, location, status): quantity}, **head)

    async def take_out(self) -> None:
        (sku, warehouse), quantity, status = self.place(), self.quantity(), self.luck.choice(STATUSES[:2])
        taken = self.model.pick(sku, warehouse, status, quantity)
        changes = None if taken is None else {cell: -part for cell, part in taken.items()}
        line = {"sku": sku, "warehouse": warehouse, "status": status, "quantity": plain(quantity)}
        if self.luck.random() < 0.5:
            await self.post("issue", [line], changes)
        else:
            line["quantity"] = "-" + line["quantity"]
            await self.post("adjustment", [line], changes, reason="shrinkage")

    async def transfer(self) -> None:
        sku, (source, target) = self.luck.choice(self.skus), self.luck.sample(self.warehouses * 2, 2)
        quantity, location = self.quantity(), self.luck.choice(("STOCK", "A-01"))
        taken = self.model.pick(sku, source, "sellable", quantity, beside=location if source == target else None)
        changes: dict[Cell, Decimal] | None = None
        if taken is not None:
            changes = {cell: -part for cell, part in taken.items()}
            into = (sku, target, location, "sellable")
            changes[into] = changes.get(into, ZERO) + quantity
        line = {
            "sku": sku,
            "warehouse": source,
            "quantity": plain(quantity),
            "to_location": location,
            "to_warehouse": target,
        }
        await self.post("transfer", [line], changes)

    async def change_status(self) -> None:
        (sku, warehouse), quantity = self.place(), self.quantity()
        before, after = self.luck.sample(STATUSES, 2)
        taken = self.model.pick(sku, warehouse, before, quantity)
        changes: dict[Cell, Decimal] | None = None
        if taken is not None:
            changes = {cell: -part for cell, part in taken.items()}
            for cell, part in taken.items():
                changes[*cell[:3], after] = changes.get((*cell[:3], after), ZERO) + part
        line = {"sku": sku, "warehouse": warehouse, "status": before, "to_status": after, "quantity": plain(quantity)}
        await self.post("status_change", [line], changes)

    async def receive_many(self) -> None:
        """Several lines at once, some of the same goods."""
        places = [self.place() for _ in range(self.luck.randint(2, 6))]
        lines, changes = list[dict[str, Any]](), dict[Cell, Decimal]()
        for sku, warehouse in places:
            quantity = self.quantity()
            lines.append({"sku": sku, "warehouse": warehouse, "quantity": plain(quantity)})
            cell = (sku, warehouse, "STOCK", "sellable")
            changes[cell] = changes.get(cell, ZERO) + quantity
        await self.post("receipt", lines, changes)

    async def reverse(self) -> None:
        if not self.model.movements:
            return
        posted = self.luck.choice(self.model.movements)
        answer = await self.api.request("POST", f"/movements/{posted.id}/reverse")
        changes = {cell: -quantity for cell, quantity in posted.changes.items()}
        if posted.is_reversal or posted.is_reversed or not self.model.allows(changes):
            assert answer.status_code == 409, answer.text
            self.refused += 1
            return
        assert answer.status_code == 201, answer.text
        posted.is_reversed = True
        self.model.apply(changes)
        occurred_at = datetime.fromisoformat(answer.json()["occurred_at"])
        self.model.movements.append(Posted(answer.json()["id"], occurred_at, changes, is_reversal=True))

    async def reserve(self) -> None:
        lines = [(*self.place(), self.quantity()) for _ in range(self.luck.choice((1, 1, 2, 4)))]
        demand: dict[tuple[str, str], Decimal] = {}
        for sku, warehouse, quantity in lines:
            demand[sku, warehouse] = demand.get((sku, warehouse), ZERO) + quantity
        body = {
            "lines": [{"sku": sku, "warehouse": warehouse, "quantity": plain(each)} for sku, warehouse, each in lines]
        }
        answer = await self.api.request("POST", "/reservations", body)
        short = {place: each for place, each in demand.items() if each > self.model.available(*place)}
        if short:
            assert answer.status_code == 409, answer.text
            told = {(line["sku"], line["warehouse"]): line for line in answer.json()["lines"]}
            assert set(told) == set(short)
            for place, line in told.items():
                assert Decimal(line["available"]) == self.model.available(*place)
                assert Decimal(line["requested"]) == demand[place]
            self.refused += 1
            return
        assert answer.status_code == 201, answer.text
        self.model.holds.append(Hold(answer.json()["id"], "held", [list(line) for line in lines]))

    async def end_hold(self) -> None:
        if not self.model.holds:
            return
        going_on = [hold for hold in self.model.holds if hold.status in ("confirmed", "partially_consumed")]
        hold = self.luck.choice(going_on if going_on and self.luck.random() < 0.6 else self.model.holds)
        step = self.luck.choice(("confirm", "confirm", "release", "consume", "consume"))
        if step == "confirm":
            expect = 409 if hold.status == "released" else 200
            answer = await self.api.post(f"/reservations/{hold.id}/confirm", expect=expect)
            hold.status = "confirmed" if hold.status == "held" else hold.status
        elif step == "release":
            answer = await self.api.post(f"/reservations/{hold.id}/release", expect=200)
            if hold.status in ("held", "confirmed", "partially_consumed"):
                hold.status = "consumed" if hold.status == "partially_consumed" else "released"
                for line in hold.lines:
                    line[2] = ZERO
            assert answer["status"] == hold.status
        else:
            await self.consume(hold)

    async def consume(self, hold: Hold) -> None:
        number = self.luck.randrange(len(hold.lines))
        sku, warehouse, left = hold.lines[number]
        quantity = self.luck.choice((left, left / 2, self.quantity())).quantize(Decimal("0.000001"))
        if quantity <= 0:
            return
        body = {"lines": [{"line": number + 1, "quantity": plain(quantity)}]}
        answer = await self.api.request("POST", f"/reservations/{hold.id}/consume", body)
        if hold.status not in ("confirmed", "partially_consumed") or quantity > left:
            assert answer.status_code == 409, answer.text
            self.refused += 1
            return
        assert answer.status_code == 201, answer.text
        taken = self.model.pick(sku, warehouse, "sellable", quantity)
        assert taken is not None
        changes = {cell: -part for cell, part in taken.items()}
        self.model.apply(changes)
        hold.lines[number][2] = left - quantity
        hold.status = "partially_consumed" if any(line[2] for line in hold.lines) else "consumed"
        movement = await self.api.get(f"/movements/{answer.json()['movement_id']}")
        self.model.movements.append(Posted(movement["id"], datetime.fromisoformat(movement["occurred_at"]), changes))

    async def step(self) -> None:
        steps = (
            self.receive, self.receive, self.receive_many, self.take_out, self.transfer, self.change_status, self.reverse,
            self.reserve, self.reserve, self.end_hold, self.end_hold,
        )  # fmt: skip
        await self.luck.choice(steps)()
        self.steps += 1
        await self.compare()

    async def compare(self) -> None:
        """Every level, as the API tells it, is what the model says."""
        told = (await self.api.request("GET", "/stock", params={"sku": self.skus, "limit": 1000})).json()["items"]
        assert [(item["sku"], item["warehouse"]) for item in told] == sorted(
            (item["sku"], item["warehouse"]) for item in told
        )
        for item in told:
            place = item["sku"], item["warehouse"]
            expected = {
                "on_hand": self.model.on_hand(*place), "sellable": self.model.on_hand(*place, "sellable"),
                "reserved": self.model.promised(*place, "held"),
                "allocated": self.model.promised(*place, "confirmed", "partially_consumed"),
                "available": self.model.available(*place),
            }  # fmt: skip
            assert {name: Decimal(item[name]) for name in expected} == expected, place
        seen = {(item["sku"], item["warehouse"]) for item in told}
        assert all(quantity == 0 for cell, quantity in self.model.goods.items() if cell[:2] not in seen)

    async def compare_history(self) -> None:
        """At every instant at which something happened, and just before it, the past is the sum of what had happened."""
        instants = {posted.occurred_at for posted in self.model.movements}
        for instant in sorted(instants | {moment - timedelta(microseconds=1) for moment in instants}):
            told = (
                await self.api.request(
                    "GET", "/stock", params={"sku": self.skus, "as_of": instant.isoformat(), "limit": 1000}
                )
            ).json()["items"]
            past: dict[Cell, Decimal] = {}
            for posted in self.model.movements:
                if posted.occurred_at <= instant:
                    for cell, quantity in posted.changes.items():
                        past[cell] = past.get(cell, ZERO) + quantity
            for item in told:
                place = item["sku"], item["warehouse"]
                assert Decimal(item["on_hand"]) == self.model.on_hand(*place, changes=past), (instant, place)


@pytest.fixture(scope="module")
async def lasting(postgres: ServerThread, template: str, request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    async with lasting_world(postgres, template, request) as world:
        yield world


async def begin_day(world: World, seed: int) -> Day:
    name = uuid7().hex[-8:]
    day = Day(
        world.as_("manager"), random.Random(seed), [f"S-{name}-{n}" for n in range(3)], [f"W-{name}-{n}" for n in range(2)]
    )  # fmt: skip
    await day.prepare(world)
    return day


@BOUNDED
@given(seed=st.integers(0, 10**9), steps=st.integers(10, 40))
async def test_the_books_say_what_the_model_says_after_every_step(lasting: World, seed: int, steps: int):
    day = await begin_day(lasting, seed)
    for _ in range(steps):
        await day.step()
    assert day.steps == steps


async def test_what_was_issued_before_it_was_received_is_told_as_it_was(lasting: World):
    day = await begin_day(lasting, 51)
    sku, warehouse = day.skus[0], day.warehouses[0]
    now = datetime.now(UTC)
    line = {"sku": sku, "warehouse": warehouse, "quantity": "5"}
    await day.api.post("/movements", {"type": "receipt", "lines": [line]})
    issued_at = (now - timedelta(days=2)).isoformat()
    await day.api.post("/movements", {"type": "issue", "occurred_at": issued_at, "lines": [line | {"quantity": "4"}]})
    question = {"sku": sku, "as_of": (now - timedelta(days=1)).isoformat()}
    (then,) = (await day.api.request("GET", "/stock", params=question)).json()["items"]
    assert then["on_hand"] == "-4"
    schema = (await lasting.http.get("/openapi.json")).json()["components"]["schemas"]["StockLevel"]
    validate(schema, then)


@pytest.mark.parametrize("seed", [11, 12])
async def test_the_past_is_the_sum_of_what_had_happened_by_then(lasting: World, seed: int):
    day = await begin_day(lasting, seed)
    for _ in range(40):
        await day.step()
    assert len(day.model.movements) >= 10
    await day.compare_history()


async def test_a_closed_past_never_changes(lasting: World):
    day = await begin_day(lasting, 21)
    for _ in range(15):
        await day.receive_many()
    closed = datetime.now(UTC).isoformat()
    question = {"sku": day.skus, "as_of": closed, "limit": 1000}
    before = (await day.api.request("GET", "/stock", params=question)).json()
    for _ in range(25):
        await day.luck.choice((day.receive_many, day.take_out, day.reverse, day.transfer, day.change_status))()
    assert (await day.api.request("GET", "/stock", params=question)).json() == before


async def test_reversing_everything_from_the_last_to_the_first_leaves_nothing(lasting: World):
    day = await begin_day(lasting, 31)
    for _ in range(30):
        await day.luck.choice((day.receive, day.receive_many, day.take_out, day.transfer, day.change_status))()
    for posted in reversed([posted for posted in day.model.movements if not posted.is_reversal]):
        await day.api.post(f"/movements/{posted.id}/reverse")
    for item in (await day.api.request("GET", "/stock", params={"sku": day.skus, "limit": 1000})).json()["items"]:
        assert (item["on_hand"], item["sellable"], item["available"]) == ("0", "0", "0")


async def test_days_reach_every_kind_of_step_and_every_invariant_holds_after_them(lasting: World):
    """The days above shared one database; what they left behind is audited as a whole."""
    day = await begin_day(lasting, 41)
    for _ in range(200):
        await day.step()
    assert day.refused >= 20
    assert {hold.status for hold in day.model.holds} >= {"held", "consumed"}
    assert any(posted.is_reversal for posted in day.model.movements)
    await check_integrity(lasting)
