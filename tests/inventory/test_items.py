"""What stock knows of products, from two sides at once."""

import asyncio
from typing import Any

from stockade.inventory.items import get_item, learn_items
from stockade.kit.ids import uuid7
from tests.world import World


def product(number: int, version: int) -> dict[str, Any]:
    known: dict[str, Any] = {"sku": f"P-{number}", "unit": "each", "tracking": "none", "is_active": True}
    return known | {"id": str(IDS[number]), "name": f"version {version}", "version": version}


IDS = [uuid7() for _ in range(50)]


async def test_products_are_learnt_by_many_at_once_and_the_newest_stays(world: World) -> None:
    database = world.context("inventory-service").database
    for round_ in range(5):
        learning = [
            database.run(learn_items, products=[product(number, version) for number in range(50)])
            for version in range(round_ * 8, round_ * 8 + 8)
        ]
        await asyncio.gather(*learning)
    assert (await database.read(get_item, sku="P-7")).name == "version 39"
