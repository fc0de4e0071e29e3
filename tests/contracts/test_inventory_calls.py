"""What the inventory-service asks: products of the catalog, findings of everybody's self-audit."""

import pytest

from stockade.inventory.calls import fetch_findings, fetch_products
from stockade.inventory.items import learn_items
from stockade.inventory.shapes import IntegrityFinding
from stockade.kit.errors import Invalid
from tests.contracts.conftest import Reach
from tests.world import World

CATALOG = "product-catalog-service"


async def test_products_are_told_as_stock_learns_them(world: World, reach: Reach):
    api = world.as_("manager")
    made = await api.post("/products", {"sku": "A-1", "name": "Kettle", "unit": "kg", "tracking": "lot"})
    await api.post("/products", {"sku": "B/2", "name": "Lid", "is_active": False})
    found = await fetch_products(reach("inventory-service", CATALOG), skus=["A-1", "B/2", "NONE"])
    assert found[0] == {
        "id": made["id"], "sku": "A-1", "name": "Kettle", "unit": "kg", "tracking": "lot", "is_active": True,
    }  # fmt: skip
    assert [(product["sku"], product["is_active"]) for product in found] == [("A-1", True), ("B/2", False)]
    await world.context("inventory-service").database.run(learn_items, products=found)
    assert (await api.get("/items/A-1"))["unit"] == "kg"


async def test_as_many_products_are_found_as_a_movement_may_have_lines(world: World, reach: Reach):
    """In several calls, and with the longest SKUs that there may be."""
    skus = [f"{number:04d}-{'x' * 59}" for number in range(1_000)]
    await world.as_("manager").post("/products/bulk", {"products": [{"sku": sku, "name": "x"} for sku in skus]}, 200)
    found = await fetch_products(reach("inventory-service", CATALOG), skus=skus)
    assert [product["sku"] for product in found] == skus


async def test_a_sku_that_is_none_is_refused_with_its_place(reach: Reach):
    with pytest.raises(Invalid) as refused:
        await fetch_products(reach("inventory-service", CATALOG), skus=["A-1", "no sku"])
    assert (refused.value.code, refused.value.errors[0]["pointer"]) == ("invalid_request", "query/sku/1")


@pytest.mark.parametrize(("provider", "ids"), [("order-service", {"I8", "I16"}), ("supplier-service", {"I9", "I16"})])
async def test_the_findings_of_others_can_be_read(reach: Reach, provider: str, ids: set[str]):
    findings = [IntegrityFinding(**finding) for finding in await fetch_findings(reach("inventory-service", provider))]
    assert {finding.id for finding in findings} == ids
    assert {(finding.service, finding.violations) for finding in findings} == {(provider, 0)}
