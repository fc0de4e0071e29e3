"""Suppliers, and what they offer."""

from typing import Any

import pytest

from stockade.kit.ids import uuid7
from tests.supplier.purchasing import found_company
from tests.world import World

ACME = {"code": "ACME", "name": "Acme"}


async def test_a_new_supplier_is_found_by_its_id_and_in_the_list(world: World):
    buyer = world.as_("purchasing")
    body = ACME | {"email": "sales@acme.example", "lead_time_days": 7, "over_receipt_tolerance": "0.05"}
    made = await buyer.post("/suppliers", body)
    assert {name: made[name] for name in body} == body
    assert await buyer.get(f"/suppliers/{made['id']}") == made
    assert (await buyer.get("/suppliers"))["items"] == [made]


async def test_a_code_is_given_once(world: World):
    buyer = world.as_("purchasing")
    await buyer.post("/suppliers", ACME)
    refused = await buyer.post("/suppliers", ACME | {"name": "Another"}, expect=409)
    assert refused["code"] == "supplier_code_taken"


async def test_the_same_key_makes_one_supplier(world: World):
    buyer = world.as_("purchasing")
    first = await buyer.post("/suppliers", ACME, key="once")
    assert await buyer.post("/suppliers", ACME, key="once") == first
    refused = await buyer.post("/suppliers", ACME | {"name": "Other"}, key="once", expect=422)
    assert refused["code"] == "idempotency_key_reused"


async def test_the_list_goes_by_code_from_page_to_page(world: World):
    buyer = world.as_("purchasing")
    for code in ("C", "A", "B"):
        await buyer.post("/suppliers", {"code": code, "name": code})
    first = await buyer.get("/suppliers", limit=2)
    rest = await buyer.get("/suppliers", limit=2, cursor=first["next"])
    assert [item["code"] for item in first["items"] + rest["items"]] == ["A", "B", "C"]
    assert rest["next"] is None


async def test_a_change_touches_only_what_is_sent_and_null_removes(world: World):
    buyer = world.as_("purchasing")
    made = await buyer.post("/suppliers", ACME | {"email": "a@acme.example", "lead_time_days": 7})
    changed = await buyer.patch(f"/suppliers/{made['id']}", {"name": "Acme Ltd"}, if_match='"1"')
    assert changed == made | {"name": "Acme Ltd", "version": 2}
    bare = await buyer.patch(f"/suppliers/{made['id']}", {"email": None, "lead_time_days": None}, if_match='"2"')
    assert (bare["name"], bare["email"], bare["lead_time_days"]) == ("Acme Ltd", None, None)


async def test_a_change_needs_the_version_that_was_read(world: World):
    buyer = world.as_("purchasing")
    path = f"/suppliers/{(await buyer.post('/suppliers', ACME))['id']}"
    assert (await buyer.request("GET", path)).headers["ETag"] == '"1"'
    await buyer.patch(path, {"name": "First"}, if_match='"1"')
    stale = await buyer.patch(path, {"name": "Second"}, if_match='"1"', expect=412)
    assert stale["code"] == "stale_version"
    assert (await buyer.request("PATCH", path, {"name": "Third"})).status_code == 428


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"code": "white space"}, "/code"),
        ({"name": ""}, "/name"),
        ({"email": "nobody"}, "/email"),
        ({"lead_time_days": -1}, "/lead_time_days"),
        ({"lead_time_days": "7"}, "/lead_time_days"),
        ({"lead_time_days": 3651}, "/lead_time_days"),
        ({"over_receipt_tolerance": "-0.1"}, "/over_receipt_tolerance"),
        ({"over_receipt_tolerance": "1.000001"}, "/over_receipt_tolerance"),
        ({"over_receipt_tolerance": "0.0000001"}, "/over_receipt_tolerance"),
        ({"over_receipt_tolerance": 0.05}, "/over_receipt_tolerance"),
        ({"tolerance": "0.05"}, "/tolerance"),
    ],
)
async def test_it_points_at_the_field_that_makes_no_sense(world: World, change: dict[str, Any], pointer: str):
    refused = await world.as_("purchasing").post("/suppliers", ACME | change, expect=422)
    assert [error["pointer"] for error in refused["errors"]] == [pointer]


async def test_unknown_suppliers_and_cursors_are_refused(world: World):
    buyer = world.as_("purchasing")
    unknown = f"/suppliers/{uuid7()}"
    assert (await buyer.get(unknown, expect=404))["code"] == "supplier_not_found"
    assert (await buyer.get(f"{unknown}/items", expect=404))["code"] == "supplier_not_found"
    await buyer.patch(unknown, {"name": "Nobody"}, if_match='"1"', expect=404)
    assert (await buyer.get("/suppliers", expect=422, cursor="nonsense"))["code"] == "unknown_cursor"
    await buyer.get("/suppliers/not-an-id", expect=422)


async def test_items_are_replaced_by_sku_and_listed_in_order(world: World):
    manager = await found_company(world, "A-1", "B-1", "C-1")
    path = f"/suppliers/{(await manager.get('/suppliers'))['items'][0]['id']}/items"
    full = {"sku": "B-1", "supplier_sku": "X 9", "unit_cost": "2.5", "minimum_quantity": "10", "pack_size": "5"}
    answer = await manager.post(path, {"items": [full, {"sku": "A-1", "unit_cost": "1"}]}, expect=200)
    assert answer["items"][0] == full
    await manager.post(path, {"items": [{"sku": "B-1", "unit_cost": "3"}]}, expect=200)
    first = await manager.get(path, limit=1)
    rest = await manager.get(path, limit=1, cursor=first["next"])
    bare = {"supplier_sku": None, "minimum_quantity": None, "pack_size": None}
    assert first["items"] + rest["items"] == [
        {"sku": "A-1", "unit_cost": "1"} | bare,
        {"sku": "B-1", "unit_cost": "3"} | bare,
    ]


async def test_a_list_with_an_unknown_or_repeated_sku_changes_nothing(world: World):
    manager = await found_company(world, "A-1")
    path = f"/suppliers/{(await manager.get('/suppliers'))['items'][0]['id']}/items"
    known, unknown = {"sku": "A-1", "unit_cost": "1"}, {"sku": "GONE", "unit_cost": "1"}
    refused = await manager.post(path, {"items": [known, unknown]}, expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("unknown_sku", "/items/1/sku")
    refused = await manager.post(path, {"items": [known, known]}, expect=422)
    assert (refused["code"], refused["errors"][0]["pointer"]) == ("duplicate_sku", "/items/1/sku")
    assert (await manager.get(path))["items"] == []


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"sku": f"A-{number}", "unit_cost": "1"} for number in range(1001)],
        [{"sku": "A-1"}],
        [{"sku": "A-1", "unit_cost": "-1"}],
        [{"sku": "A-1", "unit_cost": "1", "pack_size": "0"}],
        [{"sku": "A-1", "unit_cost": "1", "minimum_quantity": "0.0000001"}],
    ],
)
async def test_it_refuses_senseless_items(world: World, items: list[dict[str, Any]]):
    buyer = world.as_("purchasing")
    path = f"/suppliers/{(await buyer.post('/suppliers', ACME))['id']}/items"
    await buyer.post(path, {"items": items}, expect=422)


async def test_items_of_an_unknown_supplier_are_refused(world: World):
    manager = await found_company(world, "A-1")
    body = {"items": [{"sku": "A-1", "unit_cost": "1"}]}
    assert (await manager.post(f"/suppliers/{uuid7()}/items", body, expect=404))["code"] == "supplier_not_found"


@pytest.mark.parametrize("role", ["warehouse", "sales", "auditor", "viewer"])
async def test_only_purchasing_changes_suppliers(world: World, role: str):
    made = await world.as_("purchasing").post("/suppliers", ACME)
    someone = world.as_(role)
    assert (await someone.post("/suppliers", ACME, expect=403))["needs"] == "suppliers:write"
    await someone.patch(f"/suppliers/{made['id']}", {"name": "Mine"}, if_match='"1"', expect=403)
    await someone.post(f"/suppliers/{made['id']}/items", {"items": [{"sku": "A", "unit_cost": "1"}]}, expect=403)
    await someone.get(f"/suppliers/{made['id']}")
    await world.as_().get("/suppliers", expect=403)
    await world.anonymous().get("/suppliers", expect=401)
