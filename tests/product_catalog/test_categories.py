"""The tree of categories, and the built-in units."""

from typing import Any

import asyncpg
import pytest

from tests.world import World


async def add(world: World, code: str, parent: str | None = None, expect: int = 201) -> Any:
    body = {"code": code, "name": f"Category {code}", "parent": parent}
    return await world.as_("purchasing").post("/categories", body, expect=expect)


async def test_it_lists_categories_by_code_with_their_parents(world: World):
    await add(world, "food")
    made = await add(world, "food/dairy", "food")
    await add(world, "Bolts")
    first = await world.as_("viewer").get("/categories", limit=2)
    assert [item["code"] for item in first["items"]] == ["Bolts", "food"]
    second = await world.as_("viewer").get("/categories", limit=2, cursor=first["next"])
    assert second == {"items": [made], "next": None}
    assert (made["parent"], made["depth"]) == ("food", 2)


async def test_a_code_names_one_category(world: World):
    await add(world, "food")
    assert (await add(world, "food", expect=409))["code"] == "category_taken"


@pytest.mark.parametrize("parent", ["nowhere", "itself"])
async def test_a_parent_has_to_exist_before_its_child(world: World, parent: str):
    refused = await add(world, "itself", parent, expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_parent", "/parent")
    assert (await world.as_("viewer").get("/categories"))["items"] == []


async def test_categories_are_nested_eight_deep_at_most(world: World):
    parent = None
    for depth in range(1, 9):
        assert (await add(world, f"c{depth}", parent))["depth"] == depth
        parent = f"c{depth}"
    assert (await add(world, "c9", parent, expect=422))["code"] == "category_too_deep"


async def test_the_database_has_no_place_for_a_cycle(world: World):
    connection = await world.connect("product_catalog")
    try:
        for first, second in ((1, 2), (2, 1), (2, 2), (2, 3)):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await connection.execute(
                    """
                    INSERT INTO categories (code, name, parent, depth, created_by)
                    VALUES ('a', 'A', 'b', $1, 'x'), ('b', 'B', 'a', $2, 'x')
                    """,
                    first, second,
                )  # fmt: skip
    finally:
        await connection.close()


async def test_units_are_built_in_with_their_international_codes(world: World):
    units = (await world.as_("viewer").get("/units"))["items"]
    codes = {unit["code"]: unit["unece_code"] for unit in units}
    expected = {"each": "EA", "one": "C62", "kg": "KGM", "g": "GRM", "l": "LTR", "ml": "MLT", "m": "MTR", "box": "BX"}
    expected |= {"pack": "PK", "pair": "PR", "case": "CS"}
    assert {code: codes[code] for code in expected} == expected
    assert list(codes) == sorted(codes)


async def test_every_built_in_unit_can_be_used(world: World):
    codes = [unit["code"] for unit in (await world.as_("viewer").get("/units"))["items"]]
    products = [{"sku": f"S-{code}", "name": code, "unit": code} for code in codes]
    answer = await world.as_("purchasing").post("/products/bulk", {"products": products}, expect=200)
    assert {result["status"] for result in answer["results"]} == {201}
