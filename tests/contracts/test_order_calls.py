"""What the order-service asks: reservations, shipments and returns of the inventory-service, products of the catalog."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from stockade.kit.calls import ServiceClient
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.order import calls
from tests.contracts.conftest import Reach
from tests.inventory.stocked import check_integrity, level, stock
from tests.world import World

ME = "order-service"
PERSON = str(uuid4())


@pytest.fixture
def inventory(reach: Reach) -> ServiceClient:
    return reach(ME, "inventory-service")


async def hold(inventory: ServiceClient, *lines: tuple[str, str], key: str = "", **more: Any) -> calls.Reservation:
    asked = {"reference": "SO-000001", "mode": "all", "warehouse": "MAIN", "person": PERSON} | more
    wanted = [(sku, Decimal(quantity)) for sku, quantity in lines]
    return await calls.hold(inventory, key=key or str(uuid4()), lines=wanted, **asked)


async def test_a_hold_is_granted_line_by_line_and_the_same_again(world: World, inventory: ServiceClient):
    api = await stock(world, "10", "A-1", "B-2")
    held = await hold(inventory, ("A-1", "4"), ("B-2", "2.5"), key="hold-1")
    assert held.granted == {1: Decimal(4), 2: Decimal("2.5")}
    assert await hold(inventory, ("A-1", "4"), ("B-2", "2.5"), key="hold-1") == held
    told = await api.get(f"/reservations/{held.id}")
    assert (told["status"], told["reference"]) == ("held", "SO-000001")
    assert (await level(api))["reserved"] == "4"


async def test_a_partial_hold_grants_what_is_there(world: World, inventory: ServiceClient):
    await stock(world, "10", "A-1", "B-2")
    held = await hold(inventory, ("A-1", "12"), ("B-2", "1"), mode="partial")
    assert held.granted == {1: Decimal(10), 2: Decimal(1)}
    with pytest.raises(Conflict) as refused:
        await hold(inventory, ("A-1", "1"), mode="partial")
    assert refused.value.code == "insufficient_stock"


async def test_a_refused_hold_tells_what_is_available(world: World, inventory: ServiceClient):
    api = await stock(world, "10", "A-1", "B-2")
    with pytest.raises(Conflict) as refused:
        await hold(inventory, ("A-1", "10"), ("B-2", "10.5"))
    assert refused.value.code == "insufficient_stock"
    assert refused.value.data["lines"] == [{"sku": "B-2", "warehouse": "MAIN", "requested": "10.5", "available": "10"}]
    assert (await level(api))["reserved"] == "0"


async def test_names_that_nobody_knows_come_back_with_their_places(world: World, inventory: ServiceClient):
    await stock(world, "10")
    with pytest.raises(Invalid) as refused:
        await hold(inventory, ("A-1", "1"), ("NONE", "1"))
    assert (refused.value.code, refused.value.errors[0]["pointer"]) == ("unknown_sku", "/lines/1/sku")
    with pytest.raises(Invalid) as refused:
        await hold(inventory, ("A-1", "1"), warehouse="NONE")
    assert (refused.value.code, refused.value.errors[0]["pointer"]) == ("unknown_warehouse", "/lines/0/warehouse")


async def test_what_is_confirmed_is_shipped_for_the_person_who_asked(world: World, inventory: ServiceClient):
    api = await stock(world, "10")
    held = await hold(inventory, ("A-1", "4"))
    for _ in range(2):
        await calls.confirm(inventory, reservation_id=held.id, person=PERSON)

    async def ship(key: str, quantity: str) -> UUID:
        return await calls.consume(
            inventory,
            key=key,
            reservation_id=held.id,
            reference="SH-000001",
            lines=[(1, Decimal(quantity))],
            person=PERSON,
        )

    first = await ship("ship-1", "3")
    assert await ship("ship-1", "3") == first
    movement = await api.get(f"/movements/{first}")
    assert (movement["type"], movement["reference"], movement["actor"]) == ("issue", "SH-000001", PERSON)
    with pytest.raises(Conflict) as refused:
        await ship("ship-2", "1.5")
    assert (refused.value.code, refused.value.data["lines"]) == (
        "over_consumed",
        [{"line": 1, "requested": "1.5", "left": "1"}],
    )
    for _ in range(2):
        await calls.release(inventory, reservation_id=held.id, person=PERSON)
    assert await level(api) == (await level(api)) | {"on_hand": "7", "allocated": "0", "available": "7"}
    await check_integrity(world)


async def test_what_has_expired_or_was_released_cannot_be_confirmed(
    world: World, inventory: ServiceClient, monkeypatch: pytest.MonkeyPatch
):
    await stock(world, "10")
    released = await hold(inventory, ("A-1", "4"))
    await calls.release(inventory, reservation_id=released.id, person=PERSON)
    monkeypatch.setattr(calls, "HOLD_S", 1)
    expired = await hold(inventory, ("A-1", "4"))
    await asyncio.sleep(1.1)
    for reservation, code in ((released, "reservation_released"), (expired, "reservation_expired")):
        with pytest.raises(Conflict) as refused:
            await calls.confirm(inventory, reservation_id=reservation.id, person=PERSON)
        assert refused.value.code == code
    with pytest.raises(NotFound) as missing:
        await calls.confirm(inventory, reservation_id=uuid4(), person=PERSON)
    assert missing.value.code == "reservation_not_found"
    await calls.release(inventory, reservation_id=uuid4(), person=PERSON)


async def test_a_return_is_a_movement_with_a_status_a_line(world: World, inventory: ServiceClient):
    api = await stock(world, "10", "A-1", "B-2")
    lines = [
        {"sku": "A-1", "warehouse": "MAIN", "quantity": "2", "status": "sellable"},
        {"sku": "B-2", "warehouse": "MAIN", "quantity": "1", "status": "damaged"},
    ]

    async def take_back() -> UUID:
        return await calls.receive_return(inventory, key="return-1", reference="RT-000001", lines=lines, person=PERSON)

    movement_id = await take_back()
    assert await take_back() == movement_id
    movement = await api.get(f"/movements/{movement_id}")
    assert (movement["type"], movement["reason"], movement["actor"]) == ("receipt", "customer_return", PERSON)
    assert [(await level(api, sku))["available"] for sku in ("A-1", "B-2")] == ["12", "10"]


async def test_stock_and_warehouses_are_read_to_the_last_page(
    world: World, inventory: ServiceClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "_PAGE_SIZE", 2)
    api = await stock(world, "10", "A-1", "B-2")
    for code in ("EAST", "WEST"):
        await api.post("/warehouses", {"code": code, "name": code})
        line = {"sku": "A-1", "warehouse": code, "quantity": "0.5"}
        await api.post("/movements", {"type": "receipt", "lines": [line]})
    assert await calls.list_warehouses(inventory) == ["EAST", "MAIN", "WEST"]
    found = await calls.read_stock(inventory, ["A-1", "B-2", "NONE"])
    assert [(one.sku, one.warehouse, one.available) for one in found] == [
        ("A-1", "EAST", Decimal("0.5")),
        ("A-1", "MAIN", Decimal(10)),
        ("A-1", "WEST", Decimal("0.5")),
        ("B-2", "MAIN", Decimal(10)),
    ]


async def test_the_catalog_tells_what_is_sold(world: World, reach: Reach):
    api, catalog = world.as_("manager"), reach(ME, "product-catalog-service")
    await api.post("/products", {"sku": "A-1", "name": "Kettle"})
    await api.post("/products", {"sku": "B-2", "name": "Lid", "is_active": False})
    await calls.check_products(catalog, ["A-1", "A-1"])
    for skus, code in ((["A-1", "NONE"], "unknown_sku"), (["A-1", "B-2"], "inactive_product")):
        with pytest.raises(Invalid) as refused:
            await calls.check_products(catalog, skus)
        assert (refused.value.code, refused.value.errors[0]["pointer"]) == (code, "/lines/1/sku")
