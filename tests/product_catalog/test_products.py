"""Making, finding and changing products, one at a time."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest

from stockade.kit.events import read_events
from tests.world import Api, World, issue_token

SERVICE = "product-catalog-service"
GTIN = "4006381333931"


def buyer(world: World) -> Api:
    return world.as_("purchasing", subject="the buyer")


async def add(world: World, sku: str = "A-1", expect: int = 201, **fields: Any) -> Any:
    return await buyer(world).post("/products", {"sku": sku, "name": f"Article {sku}"} | fields, expect=expect)


async def list_skus(world: World, **query: Any) -> list[str]:
    return [item["sku"] for item in (await buyer(world).get("/products", **query))["items"]]


async def list_events(world: World) -> list[dict[str, Any]]:
    events, _ = await read_events(world.context(SERVICE).database, after=0, limit=500)
    return events


async def test_it_makes_a_product_with_defaults(world: World):
    made = await add(world)
    read = await world.as_("viewer").get("/products/A-1")
    assert made == read
    expected = {
        "sku": "A-1", "name": "Article A-1", "description": None, "unit": "each", "tracking": "none", "category": None,
        "barcodes": [], "price": None, "attributes": {}, "is_active": True, "version": 1,
    }  # fmt: skip
    assert {field: read[field] for field in expected} == expected
    assert read["created_at"] == read["updated_at"]


async def test_it_keeps_every_field_exactly(world: World):
    await buyer(world).post("/categories", {"code": "tools", "name": "Tools"})
    fields: dict[str, Any] = {
        "description": "Two lines\nof “text”.", "unit": "kg", "tracking": "lot", "category": "tools",
        "barcodes": ["SHELF/7?x", GTIN], "price": "0.000001", "attributes": {"färbe": "rot", "count": "10", "new": True},
        "is_active": False,
    }  # fmt: skip
    made = await add(world, "x/1.b_C-2", **fields)
    assert {field: made[field] for field in fields} == fields
    assert await buyer(world).get("/products/x/1.b_C-2") == made


async def test_a_sku_names_one_product(world: World):
    await add(world)
    refused = await add(world, expect=409, name="Another")
    assert refused["code"] == "sku_taken"
    assert (await buyer(world).get("/products/A-1"))["name"] == "Article A-1"


async def test_a_barcode_belongs_to_one_product_in_whatever_length_it_is_given(world: World):
    await add(world, barcodes=["036000291452"])
    refused = await add(world, "A-2", expect=409, barcodes=["FREE", "0036000291452"])
    assert refused["code"] == "barcode_taken"
    assert [error["pointer"] for error in refused["errors"]] == ["/barcodes/1"]
    await buyer(world).get("/products/A-2", expect=404)
    for code in ("036000291452", "0036000291452", "00036000291452"):
        assert (await world.as_("viewer").get(f"/barcodes/{code}"))["sku"] == "A-1"
    missing = await buyer(world).get("/barcodes/FREE", expect=404)
    assert missing["code"] == "barcode_not_found"


async def test_it_finds_a_barcode_that_has_characters_with_a_meaning_in_addresses(world: World):
    await add(world, barcodes=["a/b?c#d%e"])
    assert (await buyer(world).get("/barcodes/a%2Fb%3Fc%23d%25e"))["sku"] == "A-1"


async def test_a_repeated_request_makes_one_product(world: World):
    body = {"sku": "A-1", "name": "Article"}
    first = await buyer(world).post("/products", body, key="once")
    assert await buyer(world).post("/products", body, key="once") == first
    reused = await buyer(world).post("/products", body | {"name": "Other"}, key="once", expect=422)
    assert reused["code"] == "idempotency_key_reused"
    assert len(await list_events(world)) == 1


SENSELESS = [
    ({"sku": "A 1"}, "/sku"),
    ({"sku": ""}, "/sku"),
    ({"sku": "A" * 65}, "/sku"),
    ({"sku": "A/history"}, "/sku"),
    ({"sku": 1}, "/sku"),
    ({"name": "  "}, "/name"),
    ({"name": "a\u0000b"}, "/name"),
    ({"name": "a" * 201}, "/name"),
    ({"name": None}, "/name"),
    ({"description": ""}, "/description"),
    ({"unit": "furlong"}, "/unit"),
    ({"unit": None}, "/unit"),
    ({"tracking": "batch"}, "/tracking"),
    ({"category": "nowhere"}, "/category"),
    ({"barcodes": ["4006381333932"]}, "/barcodes/0"),
    ({"barcodes": ["has space"]}, "/barcodes/0"),
    ({"barcodes": [""]}, "/barcodes/0"),
    ({"barcodes": ["x" * 81]}, "/barcodes/0"),
    ({"barcodes": ["036000291452", "0036000291452"]}, "/barcodes"),
    ({"barcodes": [str(n) for n in range(21)]}, "/barcodes"),
    ({"barcodes": "4006381333931"}, "/barcodes"),
    ({"price": 1}, "/price"),
    ({"price": "-1"}, "/price"),
    ({"price": "1\n"}, "/price"),
    ({"price": "0.0000001"}, "/price"),
    ({"price": "1000000000000"}, "/price"),
    ({"price": "1e3"}, "/price"),
    ({"attributes": {"size": 3}}, "/attributes/size"),
    ({"attributes": {"size": None}}, "/attributes/size"),
    ({"attributes": {"size": "x" * 501}}, "/attributes/size"),
    ({"attributes": {"size": "\u0000"}}, "/attributes/size"),
    ({"attributes": {f"a{n}": "x" for n in range(51)}}, "/attributes"),
    ({"is_active": "maybe"}, "/is_active"),
    ({"colour": "red"}, "/colour"),
]


@pytest.mark.parametrize(("fields", "pointer"), SENSELESS)
async def test_it_points_at_a_field_that_makes_no_sense_alone_and_in_bulk(world: World, fields: Any, pointer: str):
    product = {"sku": "A-1", "name": "Article"} | fields
    refused = await buyer(world).post("/products", product, expect=422)
    assert [error["pointer"] for error in refused["errors"]] == [pointer]
    answer = await buyer(world).post("/products/bulk", {"products": [product, {"sku": "B", "name": "B"}]}, expect=200)
    bad, good = answer["results"]
    assert (bad["status"], good["status"]) == (422, 201)
    assert [error["pointer"] for error in bad["errors"]] == [pointer]
    assert bad["errors"][0]["code"] == refused["errors"][0]["code"]
    assert await list_skus(world) == ["B"]


async def test_it_says_all_that_is_unknown_at_once(world: World):
    refused = await add(world, expect=422, unit="furlong", category="nowhere")
    assert [error["code"] for error in refused["errors"]] == ["unknown_unit", "unknown_category"]


async def test_a_change_replaces_what_is_given_and_null_empties(world: World):
    made = await add(world, description="Old", price="2.50", barcodes=["ONE", "TWO"], attributes={"a": "1"})
    change = {"description": None, "barcodes": ["TWO", "THREE"], "attributes": {"b": False}}
    changed = await buyer(world).patch("/products/A-1", change, if_match='"1"')
    assert changed["updated_at"] > made["updated_at"]
    assert changed == made | change | {"version": 2, "updated_at": changed["updated_at"]}
    assert await buyer(world).get("/products/A-1") == changed
    await buyer(world).get("/barcodes/ONE", expect=404)
    await add(world, "A-2", barcodes=["ONE"])


async def test_a_change_needs_the_tag_that_the_answer_gave(world: World):
    await add(world)
    answer = await buyer(world).request("GET", "/products/A-1")
    tag = answer.headers["ETag"]
    changed = await buyer(world).request("PATCH", "/products/A-1", {"name": "New"}, headers={"If-Match": tag})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    stale = await buyer(world).patch("/products/A-1", {"name": "Newer"}, if_match=tag, expect=412)
    assert stale["current"] == '"2"'
    missing = await buyer(world).request("PATCH", "/products/A-1", {"name": "Newer"})
    assert missing.status_code == 428
    unknown = await buyer(world).patch("/products/A-9", {"name": "New"}, if_match="*", expect=404)
    assert unknown["code"] == "product_not_found"


@pytest.mark.parametrize("change", [{"unit": "kg"}, {"tracking": "lot"}])
async def test_unit_and_tracking_do_not_change(world: World, change: dict[str, str]):
    await add(world)
    refused = await buyer(world).patch("/products/A-1", change | {"name": "New"}, if_match='"1"', expect=409)
    assert refused["code"] == "not_changeable"
    assert (await buyer(world).get("/products/A-1"))["version"] == 1
    same = {"unit": "each", "tracking": "none", "name": "New"}
    assert (await buyer(world).patch("/products/A-1", same, if_match='"1"'))["version"] == 2


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": None}, "/name"),
        ({"is_active": None}, "/is_active"),
        ({"barcodes": None}, "/barcodes"),
        ({"attributes": None}, "/attributes"),
        ({"unit": None}, "/unit"),
        ({"sku": "A-2"}, "/sku"),
        ({"version": 5}, "/version"),
        ({"price": "-0.01"}, "/price"),
        ({"category": "nowhere"}, "/category"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(world: World, change: Any, pointer: str):
    await add(world)
    refused = await buyer(world).patch("/products/A-1", change, if_match='"1"', expect=422)
    assert [error["pointer"] for error in refused["errors"]] == [pointer]


async def test_the_history_tells_who_changed_what_and_when(world: World):
    await add(world, price="2")
    await buyer(world).patch("/products/A-1", {"price": "3.50"}, if_match='"1"')
    manager = world.as_("manager", subject="the manager")
    changed = await manager.patch("/products/A-1", {"price": "3.5", "is_active": False}, if_match='"2"')
    newest, older, first = (await world.as_("viewer").get("/products/A-1/history"))["items"]
    assert newest == {
        "version": 3, "at": changed["updated_at"], "actor": "the manager",
        "changes": {"is_active": {"from": True, "to": False}},
    }  # fmt: skip
    assert older["actor"] == "the buyer"
    assert older["changes"] == {"price": {"from": "2", "to": "3.5"}}
    assert first["changes"]["sku"] == {"from": None, "to": "A-1"}
    assert "description" not in first["changes"]


async def test_the_history_goes_on_with_its_cursor(world: World):
    await add(world)
    for version in range(1, 5):
        await buyer(world).patch("/products/A-1", {"name": f"Name {version}"}, if_match=f'"{version}"')
    versions: list[int] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await buyer(world).get("/products/A-1/history", limit=2, **cursor)
        versions += [item["version"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert versions == [5, 4, 3, 2, 1]
    await buyer(world).get("/products/A-9/history", expect=404)


async def test_a_change_that_changes_nothing_leaves_no_trace(world: World):
    made = await add(world, price="1", barcodes=["ONE"], attributes={"a": "1"})
    same = {"name": made["name"], "price": "1.000", "barcodes": ["ONE"], "attributes": {"a": "1"}}
    assert await buyer(world).patch("/products/A-1", same, if_match='"1"') == made
    assert len((await buyer(world).get("/products/A-1/history"))["items"]) == 1
    assert len(await list_events(world)) == 1


async def test_every_change_has_its_event_in_order(world: World):
    made = await add(world, unit="kg", tracking="lot")
    await buyer(world).patch("/products/A-1", {"is_active": False}, if_match='"1"')
    await add(world, "A-1", expect=409)
    created, changed = await list_events(world)
    data = {"id": made["id"], "sku": "A-1", "name": "Article A-1", "unit": "kg", "tracking": "lot"}
    assert (created["type"], created["subject"]) == ("product.created", made["id"])
    assert created["data"] == data | {"is_active": True, "version": 1}
    assert (changed["type"], changed["subject"]) == ("product.changed", made["id"])
    assert changed["data"] == data | {"is_active": False, "version": 2}


async def test_a_list_is_in_the_order_of_the_sku_and_goes_on_with_its_cursor(world: World):
    skus = ["B-1", "A-1", "a-1", "A.1", "A/1", "10", "9"]
    for sku in skus:
        await add(world, sku)
    found: list[str] = []
    page = await buyer(world).get("/products", limit=3)
    while page["next"]:
        found += [item["sku"] for item in page["items"]]
        page = await buyer(world).get("/products", limit=3, cursor=page["next"])
    assert found + [item["sku"] for item in page["items"]] == sorted(skus)


async def test_it_finds_by_the_beginning_of_a_sku_or_of_words_of_the_name(world: World):
    await add(world, "SCR-100", name="Screw, hexagon M6x20 (zinc-plated)")
    await add(world, "SCR-200", name="Schraube für Größe 24/7")
    await add(world, "HEX-1", name="Wrench 2.5mm")
    assert await list_skus(world, q="scr") == ["SCR-100", "SCR-200"]
    assert await list_skus(world, q="SCR-1") == ["SCR-100"]
    assert await list_skus(world, q="hex") == ["HEX-1", "SCR-100"]
    assert await list_skus(world, q="plat hexa") == ["SCR-100"]
    assert await list_skus(world, q="größ") == ["SCR-200"]
    assert await list_skus(world, q="24/7") == ["SCR-200"]
    assert await list_skus(world, q="2.5") == ["HEX-1"]
    assert await list_skus(world, q="crew") == []
    assert await list_skus(world, q="hexagon wrench") == []


@pytest.mark.parametrize("q", ["'", "\\", "' | 'a", ":*", "!!", "a & !b", "%", "_", "(", "\N{SNOWMAN}", "~"])
async def test_a_search_takes_every_character_for_what_it_is(world: World, q: str):
    await add(world, name="plain")
    assert await list_skus(world, q=q) == []


async def test_it_filters_by_activity_and_by_category_with_all_below(world: World):
    for code, parent in (("food", None), ("dairy", "food"), ("cheese", "dairy"), ("tools", None)):
        await buyer(world).post("/categories", {"code": code, "name": code, "parent": parent})
    await add(world, "C", category="cheese")
    await add(world, "D", category="dairy", is_active=False)
    await add(world, "T", category="tools")
    await add(world, "N")
    assert await list_skus(world, category="food") == ["C", "D"]
    assert await list_skus(world, category="food", is_active=True) == ["C"]
    assert await list_skus(world, is_active=False) == ["D"]
    assert await list_skus(world, category="nowhere") == []
    assert await list_skus(world, category="dairy", q="art") == ["C", "D"]


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1001}, {"cursor": "?"}, {"cursor": "WzEsMl0"}, {"q": ""}, {"q": "x" * 201},
     {"category": "no code"}, {"is_active": "maybe"}],
)  # fmt: skip
async def test_it_refuses_a_query_that_makes_no_sense(world: World, query: dict[str, Any]):
    refused = await buyer(world).get("/products", expect=422, **query)
    assert refused["errors"][0]["pointer"] == f"query/{next(iter(query))}"


async def test_it_refuses_a_cursor_of_another_list(world: World):
    await add(world)
    refused = await buyer(world).get("/products/A-1/history", expect=422, cursor="WyJBIl0")
    assert refused["code"] == "unknown_cursor"


@pytest.mark.parametrize("role", ["warehouse", "sales", "auditor", "viewer"])
async def test_a_role_without_the_right_reads_and_does_not_write(world: World, role: str):
    await add(world)
    api = world.as_(role)
    await api.get("/products/A-1")
    product = {"sku": "A-2", "name": "New"}
    for refused in (
        await api.post("/products", product, expect=403),
        await api.post("/products/bulk", {"products": [product]}, expect=403),
        await api.post("/categories", {"code": "c", "name": "C"}, expect=403),
        await api.patch("/products/A-1", {"name": "New"}, if_match='"1"', expect=403),
    ):
        assert refused["needs"] == "products:write"
    assert await list_skus(world) == ["A-1"]


@pytest.mark.parametrize(
    "path", ["/products", "/products/A-1", "/products/A-1/history", "/barcodes/1", "/categories", "/units"]
)
async def test_nobody_reads_without_a_token_or_a_role(world: World, path: str):
    await world.anonymous().get(path, expect=401)
    assert (await world.as_().get(path, expect=403))["needs"] == "products:read"


async def test_other_services_look_products_up_by_sku(world: World):
    made = await add(world, unit="kg", tracking="serial", is_active=False)
    await add(world, "A-2")
    await add(world, "A-3")
    transport = httpx2.ASGITransport(app=world.front.apps[SERVICE])
    async with httpx2.AsyncClient(transport=transport, base_url="http://catalog") as http:
        token = issue_token((), subject="inventory-service", kind="service", permissions=["products:read"])
        caller = Api(http, token)
        found = (await caller.get("/internal/products", sku=["A-2", "A-1", "A-9", "A-1"]))["items"]
        assert [item["sku"] for item in found] == ["A-1", "A-2"]
        expected = {"id": made["id"], "sku": "A-1", "name": "Article A-1", "unit": "kg", "tracking": "serial"}
        assert found[0] == expected | {"is_active": False}
        await caller.get("/internal/products", expect=422)
        await caller.get("/internal/products", expect=422, sku=[f"S-{n}" for n in range(501)])
        assert len((await caller.get("/internal/products", sku=[f"A-{n}" for n in range(500)]))["items"]) == 3
        await Api(http, issue_token(())).get("/internal/products", expect=403, sku="A-1")
    outside = await world.http.get("/internal/products", params={"sku": "A-1"})
    assert outside.status_code == 404


async def test_the_description_of_the_api_has_what_is_public(world: World):
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    own = {path for path in paths if path.removeprefix("/api/v1/").startswith(("product", "categ", "unit", "barcode"))}
    expected = ("products", "products/bulk", "products/{sku}", "products/{sku}/history", "barcodes/{code}")
    assert own == {f"/api/v1/{path}" for path in (*expected, "categories", "units")}
    assert not [path for path in paths if path.startswith("/internal")]


async def test_of_many_who_make_the_same_sku_at_once_one_does(world: World):
    answers = await asyncio.gather(
        *(buyer(world).request("POST", "/products", {"sku": "A-1", "name": f"Name {n}"}) for n in range(16))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 15
    assert len(await list_events(world)) == 1


async def test_of_many_who_claim_the_same_barcode_at_once_one_gets_it(world: World):
    answers = await asyncio.gather(
        *(
            buyer(world).request("POST", "/products", {"sku": f"A-{n}", "name": "Article", "barcodes": [GTIN]})
            for n in range(16)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 15
    winner = next(answer.json()["sku"] for answer in answers if answer.status_code == 201)
    assert (await buyer(world).get(f"/barcodes/{GTIN}"))["sku"] == winner


async def test_of_many_who_change_the_same_version_at_once_one_does(world: World):
    await add(world)
    answers = await asyncio.gather(
        *(
            buyer(world).request("PATCH", "/products/A-1", {"name": f"Name {n}"}, headers={"If-Match": '"1"'})
            for n in range(16)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 15
    assert (await buyer(world).get("/products/A-1"))["version"] == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE product_changes SET actor = 'nobody'",
        "DELETE FROM product_changes",
        "DELETE FROM products",
        "UPDATE products SET unit = 'kg'",
        "UPDATE products SET tracking = 'lot'",
        "UPDATE products SET sku = 'B'",
        "UPDATE barcodes SET code = 'B'",
        "UPDATE units SET name = 'B'",
        "DELETE FROM categories",
    ],
)
async def test_the_service_itself_may_not_edit_history_or_identity(world: World, statement: str):
    await add(world, barcodes=["ONE"])
    connection = await world.connect("product_catalog")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE products SET price = -1",
        "UPDATE products SET attributes = '[]'",
        "UPDATE products SET name = ''",
        "UPDATE products SET category = 'nowhere'",
        "INSERT INTO barcodes (code, product_id, place) SELECT '4006381333932', id, 1 FROM products",
        "INSERT INTO barcodes (code, product_id, place) SELECT '036000291453', id, 1 FROM products",
        "INSERT INTO barcodes (code, product_id, place) SELECT 'TWO', id, 21 FROM products",
        "INSERT INTO barcodes (code, product_id, place) SELECT c, id, 3 FROM products, unnest('{TWO,THREE}'::text[]) c",
        "INSERT INTO product_changes SELECT product_id, version, at, actor, changes FROM product_changes",
        "INSERT INTO product_changes SELECT product_id, 2, at, actor, '{}' FROM product_changes",
    ],
)
async def test_the_database_refuses_what_the_service_would(world: World, statement: str):
    await add(world)
    connection = await world.connect("product_catalog")
    try:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await connection.execute(statement)
    finally:
        await connection.close()
