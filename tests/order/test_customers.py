"""Customers: added, listed, changed without losing another's change."""

import pytest

from tests.world import World

ACME = {"code": "ACME", "name": "Acme", "email": "buy@acme.example", "address": "1 Road\nTown"}


async def test_a_customer_is_added_and_read(world: World):
    api = world.as_("sales")
    customer = await api.post("/customers", ACME, key="k")
    assert {name: customer[name] for name in ACME} == ACME
    assert await api.get(f"/customers/{customer['id']}") == customer
    assert await api.post("/customers", ACME, key="k") == customer
    assert (await api.post("/customers", ACME, expect=409))["code"] == "customer_code_taken"


async def test_customers_are_listed_by_code(world: World):
    api = world.as_("sales")
    for code in ("C", "A", "B"):
        await api.post("/customers", {"code": code, "name": code})
    first = await api.get("/customers", limit=2)
    second = await api.get("/customers", limit=2, cursor=first["next"])
    assert [item["code"] for item in first["items"] + second["items"]] == ["A", "B", "C"]


async def test_a_change_keeps_what_it_does_not_name_and_null_takes_away(world: World):
    api = world.as_("sales")
    path = f"/customers/{(await api.post('/customers', ACME))['id']}"
    renamed = await api.patch(path, {"name": "Acme Ltd"}, if_match='"1"')
    assert (renamed["name"], renamed["email"], renamed["version"]) == ("Acme Ltd", ACME["email"], 2)
    without = await api.patch(path, {"email": None}, if_match='"2"')
    assert (without["email"], without["address"]) == (None, ACME["address"])
    assert (await api.patch(path, {"name": "Late"}, if_match='"2"', expect=412))["code"] == "stale_version"
    assert (await api.request("PATCH", path, {"name": "Blind"})).status_code == 428


@pytest.mark.parametrize(
    "change", [{"code": "A B"}, {"name": ""}, {"email": "nobody"}, {"address": "\u0007"}, {"vip": True}]
)
async def test_it_refuses_customers_that_make_no_sense(world: World, change: dict):
    await world.as_("sales").post("/customers", ACME | change, expect=422)


@pytest.mark.parametrize("role", ["warehouse", "purchasing", "auditor", "viewer"])
async def test_only_sales_people_keep_customers(world: World, role: str):
    api = world.as_(role)
    assert (await api.post("/customers", ACME, expect=403))["needs"] == "customers:write"
    unknown = "/customers/00000000-0000-7000-8000-000000000000"
    assert (await api.patch(unknown, {"name": "X"}, if_match='"1"', expect=403))["needs"] == "customers:write"
    assert (await api.get(unknown, expect=404))["code"] == "customer_not_found"
