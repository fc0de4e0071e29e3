"""A code may have slashes, and its address then has them as they are or encoded."""

import pytest

from tests.inventory.stocked import stock
from tests.world import World


@pytest.mark.parametrize("slash", ["/", "%2F"])
async def test_a_code_with_slashes_has_an_address(world: World, slash: str):
    api = await stock(world, "5", "A/1/x", warehouse="EAST/2")
    sku, warehouse = f"A{slash}1{slash}x", f"EAST{slash}2"
    assert (await api.get(f"/items/{sku}"))["sku"] == "A/1/x"
    assert (await api.get(f"/stock/{sku}"))["on_hand"] == "5"
    assert (await api.get(f"/warehouses/{warehouse}"))["code"] == "EAST/2"
    renamed = await api.patch(f"/warehouses/{warehouse}", {"name": "Far east"}, if_match='"1"')
    assert renamed["name"] == "Far east"
