"""Stock for a test: products that inventory knows, a warehouse, goods in it."""

from typing import Any

from stockade.inventory.items import learn_items
from stockade.kit.ids import uuid7
from tests.world import Api, World


async def add_items(world: World, *skus: str, tracking: str = "none") -> None:
    """Products as the catalog would tell of them."""
    products = [
        {
            "id": str(uuid7()),
            "sku": sku,
            "name": sku,
            "unit": "each",
            "tracking": tracking,
            "is_active": True,
            "version": 1,
        }
        for sku in skus
    ]
    await world.context("inventory-service").database.run(learn_items, products=products)


async def stock(world: World, quantity: str = "100", *skus: str, warehouse: str = "MAIN") -> Api:
    """A manager's client, with so much of each SKU (default A-1) in the warehouse."""
    skus = skus or ("A-1",)
    api = world.as_("manager")
    await add_items(world, *skus)
    await api.post("/warehouses", {"code": warehouse, "name": warehouse})
    await receive(api, quantity, *skus, warehouse=warehouse)
    return api


async def receive(api: Api, quantity: str, *skus: str, warehouse: str = "MAIN", **line: Any) -> Any:
    lines = [{"sku": sku, "warehouse": warehouse, "quantity": quantity, **line} for sku in skus]
    return await api.post("/movements", {"type": "receipt", "lines": lines})


async def level(api: Api, sku: str = "A-1", warehouse: str = "MAIN") -> dict[str, str]:
    """The stock level as the API tells it."""
    return (await api.get("/stock", sku=sku, warehouse=warehouse))["items"][0]


async def check_integrity(world: World) -> None:
    """Every invariant holds."""
    report = await world.as_("auditor").get("/integrity")
    broken = [finding for finding in report["invariants"] if finding["violations"]]
    assert not broken, broken
