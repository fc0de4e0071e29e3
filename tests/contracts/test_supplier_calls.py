"""What the supplier-service asks: SKUs of the catalog, and that received goods are taken into stock."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from stockade.kit.errors import Conflict, Invalid, Refusal
from stockade.supplier.calls import check_skus, is_final, post_movement, word_for_receiver
from stockade.supplier.shapes import Receipt, ReceiptLine
from tests.contracts.conftest import Reach
from tests.inventory.stocked import add_items, level, stock
from tests.world import World

ME = "supplier-service"


def make_receipt(*lines: ReceiptLine, **more: Any) -> Receipt:
    content: dict[str, Any] = {
        "id": uuid4(), "number": "GR-000001", "purchase_order_id": uuid4(), "warehouse": "MAIN", "reference": None,
        "status": "posting", "movement_id": None, "received_by": str(uuid4()), "received_at": datetime.now(UTC),
    }  # fmt: skip
    return Receipt(lines=list(lines), **(content | more))


def make_line(sku: str, quantity: str, **more: Any) -> ReceiptLine:
    empty: dict[str, Any] = {"lot": None, "expires_on": None, "location": None, "unit_cost": None}
    return ReceiptLine(line_id=uuid4(), sku=sku, quantity=Decimal(quantity), **(empty | more))


async def test_a_receipt_is_taken_into_stock_once_with_lot_and_cost(world: World, reach: Reach):
    inventory = reach(ME, "inventory-service")
    api = await stock(world, "10")
    await add_items(world, "B-2", tracking="lot")
    lot = {"lot": "L7", "expires_on": date(2031, 1, 31), "unit_cost": Decimal("1.25")}
    receipt = make_receipt(make_line("A-1", "2"), make_line("B-2", "0.5", **lot))
    movement_id = await post_movement(inventory, receipt)
    assert await post_movement(inventory, receipt) == movement_id
    movement = await api.get(f"/movements/{movement_id}")
    assert (movement["type"], movement["reference"], movement["actor"]) == ("receipt", "GR-000001", receipt.received_by)
    assert datetime.fromisoformat(movement["occurred_at"]) == receipt.received_at
    into = [entry for entry in movement["entries"] if not entry["location"].startswith("@")]
    assert [(entry["sku"], entry["lot"], entry["quantity"], entry["unit_cost"]) for entry in into] == [
        ("A-1", None, "2", None),
        ("B-2", "L7", "0.5", "1.25"),
    ]
    assert (await level(api))["on_hand"] == "12"


@pytest.mark.parametrize(
    ("line", "code", "pointer"),
    [
        (make_line("NONE", "1"), "unknown_sku", "/lines/1/line_id"),
        (make_line("A-1", "1", location="NOWHERE"), "unknown_location", "/lines/1/location"),
        (make_line("A-1", "1", lot="L7"), "lot_not_tracked", "/lines/1/lot"),
    ],
)
async def test_a_refusal_of_stock_is_final_and_is_told_in_the_receivers_words(
    world: World, reach: Reach, line: ReceiptLine, code: str, pointer: str
):
    await stock(world, "10")
    with pytest.raises(Invalid) as refused:
        await post_movement(reach(ME, "inventory-service"), make_receipt(make_line("A-1", "1"), line))
    assert refused.value.code == code
    assert is_final(refused.value)
    assert word_for_receiver(refused.value).errors[0]["pointer"] == pointer


async def test_what_another_clock_or_another_program_decided_is_not_final(world: World, reach: Reach):
    inventory = reach(ME, "inventory-service")
    await stock(world, "10")
    early = make_receipt(make_line("A-1", "1"), received_at=datetime.now(UTC) + timedelta(hours=1))
    receipt = make_receipt(make_line("A-1", "1"))
    await post_movement(inventory, receipt)
    other = make_receipt(make_line("A-1", "2"), id=receipt.id)
    for attempt, code in ((early, "occurred_in_future"), (other, "idempotency_key_reused")):
        with pytest.raises(Refusal) as refused:
            await post_movement(inventory, attempt)
        assert (refused.value.code, is_final(refused.value)) == (code, False)
        assert isinstance(refused.value, Invalid | Conflict)


async def test_the_catalog_tells_which_skus_there_are(world: World, reach: Reach):
    api, catalog = world.as_("manager"), reach(ME, "product-catalog-service")
    await api.post("/products", {"sku": "A-1", "name": "Kettle"})
    await api.post("/products", {"sku": "B-2", "name": "Lid", "is_active": False})
    await check_skus(catalog, ["A-1", "B-2"], place="items", active_only=False)
    with pytest.raises(Invalid) as refused:
        await check_skus(catalog, ["NONE", "A-1", "B-2"], place="lines", active_only=True)
    assert [(error["pointer"], error["code"]) for error in refused.value.errors] == [
        ("/lines/0/sku", "unknown_sku"),
        ("/lines/2/sku", "inactive_sku"),
    ]
