"""Lines and statuses: any sequence of what people do to an order, compared with a model of one line and one shelf."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockade.order.lines import derive_status
from stockade.order.shapes import OrderLine
from tests.order.selling import amounts, check_integrity, open_shop, place, receive
from tests.world import Api, World

_numbers = count(1)

quantities = st.integers(min_value=1, max_value=6)
actions = st.one_of(
    st.tuples(st.just("receive"), quantities),
    st.tuples(st.just("ship"), quantities),
    st.tuples(st.just("return"), quantities),
    st.tuples(st.just("allocate"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(0)),
)


@dataclass
class Model:
    """What should be: the sellable stock that nobody has, and the numbers of the line."""

    free: int
    line: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NUMBERS, 0))

    def allocate(self) -> int:
        taken = min(self.free, self.line["backordered"])
        self.move("backordered", "allocated", taken)
        self.free -= taken
        return 200

    def receive(self, quantity: int) -> int:
        self.free += quantity
        return 201

    def ship(self, quantity: int) -> int:
        if quantity > self.line["allocated"]:
            return 409
        self.move("allocated", "shipped", quantity)
        return 201

    def cancel(self) -> int:
        if not self.line["allocated"] and not self.line["backordered"]:
            return 200 if self.line["cancelled"] else 409
        self.free += self.line["allocated"]
        self.move("allocated", "cancelled", self.line["allocated"])
        self.move("backordered", "cancelled", self.line["backordered"])
        return 200

    def take_back(self, quantity: int) -> int:
        if quantity > self.line["shipped"] - self.line["returned"]:
            return 409
        self.line["returned"] += quantity
        self.free += quantity
        return 201

    def move(self, source: str, target: str, quantity: int) -> None:
        self.line[source] -= quantity
        self.line[target] += quantity

    def amounts(self) -> dict[str, str]:
        return {name: str(quantity) for name, quantity in self.line.items() if quantity}


NUMBERS = ("allocated", "backordered", "shipped", "cancelled", "returned")


async def act(api: Api, model: Model, order: dict[str, Any], action: str, quantity: int) -> tuple[int, int]:
    """The status that the product answers and the one of the model."""
    path = f"/orders/{order['id']}"
    line = {"line": 1, "quantity": str(quantity)}
    match action:
        case "receive":
            await receive(api, order["lines"][0]["sku"], str(quantity))
            return 201, model.receive(quantity)
        case "ship":
            return (await api.request("POST", f"{path}/ship", {"lines": [line]})).status_code, model.ship(quantity)
        case "return":
            body = {"order_id": order["id"], "lines": [line | {"disposition": "restock"}]}
            return (await api.request("POST", "/returns", body)).status_code, model.take_back(quantity)
        case "allocate":
            return (await api.request("POST", f"{path}/allocate")).status_code, model.allocate()
        case _:
            return (await api.request("POST", f"{path}/cancel")).status_code, model.cancel()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    stock=st.integers(min_value=0, max_value=8),
    ordered=st.integers(min_value=1, max_value=8),
    mode=st.sampled_from(["partial", "none"]),
    script=st.lists(actions, max_size=8),
)
async def test_a_line_always_adds_up(world: World, stock: int, ordered: int, mode: str, script: list[tuple[str, int]]):
    number = next(_numbers)
    sku = f"P-{number}"
    api = world.as_("manager")
    if (await api.request("GET", "/warehouses/MAIN")).status_code == 404:
        api = await open_shop(world, "1", "P-0")
    await api.post("/products", {"sku": sku, "name": sku, "unit": "each"})
    if stock:
        await receive(api, sku, str(stock))
    model = Model(stock)
    model.line["backordered"] = ordered
    if mode == "partial":
        model.allocate()
    order = await place(api, (sku, str(ordered)), allocate=mode)
    for action, quantity in script:
        answered, expected = await act(api, model, order, action, quantity)
        assert answered == expected, action
        order = await api.get(f"/orders/{order['id']}")
        assert amounts(order) == model.amounts()
        line = order["lines"][0]
        assert ordered == sum(int(line[name]) for name in NUMBERS[:-1])
        assert int(line["returned"]) <= int(line["shipped"])
    await check_integrity(world)


def line_with(**quantities: int) -> OrderLine:
    numbers = {name: str(quantities.get(name, 0)) for name in NUMBERS}
    ordered = sum(quantities.get(name, 0) for name in NUMBERS[:-1])
    return OrderLine.model_validate({"line": 1, "sku": "A-1", "ordered": str(ordered), "unit_price": None} | numbers)


def test_the_status_follows_from_the_lines():
    def status_of(*lines: OrderLine) -> str:
        return derive_status(lines)

    assert status_of(line_with(backordered=2)) == "confirmed"
    assert status_of(line_with(allocated=2), line_with(backordered=2)) == "partially_allocated"
    assert status_of(line_with(allocated=2), line_with(cancelled=2)) == "allocated"
    assert status_of(line_with(shipped=1), line_with(backordered=2)) == "partially_shipped"
    assert status_of(line_with(shipped=1, cancelled=1)) == "shipped"
    assert status_of(line_with(cancelled=2)) == "cancelled"
    assert status_of(line_with(shipped=2, returned=1)) == "partially_returned"
    assert status_of(line_with(shipped=2, returned=2), line_with(allocated=1)) == "partially_returned"
    assert status_of(line_with(shipped=2, returned=2), line_with(cancelled=1)) == "returned"
