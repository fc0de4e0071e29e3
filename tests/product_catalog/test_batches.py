"""Many products in one request: an outcome each, as if one request had followed the other."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockade.kit.auth import Actor
from stockade.kit.database import connect
from stockade.kit.events import read_events
from stockade.postgres import role_of
from stockade.product_catalog.batches import parse_batch, upsert_products
from stockade.product_catalog.shapes import NewProduct, ProductBatch, Written
from tests.world import Api, World

SERVICE = "product-catalog-service"
STATEMENTS_MAX = 14
"""BEGIN and COMMIT among them."""
BUYER = Actor(id="the buyer", kind="user", permissions=frozenset())


def buyer(world: World) -> Api:
    return world.as_("purchasing", subject="the buyer")


def item(sku: str, **fields: Any) -> dict[str, Any]:
    return {"sku": sku, "name": f"Article {sku}"} | fields


async def put(world: World, *products: Any) -> list[Any]:
    return (await buyer(world).post("/products/bulk", {"products": list(products)}, expect=200))["results"]


def outcomes(results: list[Any]) -> list[Any]:
    return [result["errors"][0]["code"] if result["status"] == 422 else result["status"] for result in results]


async def test_it_makes_changes_and_leaves_alone_in_the_order_of_the_request(world: World):
    first, second = await put(world, item("B", price="1"), item("A"))
    assert (first["status"], second["status"]) == (201, 201)
    results = await put(world, item("C"), item("B", price="2"), item("A"))
    assert [(result["sku"], result["status"]) for result in results] == [("C", 201), ("B", 200), ("A", 200)]
    assert results[1:] == [first | {"status": 200}, second | {"status": 200}]
    products = (await buyer(world).get("/products"))["items"]
    assert [(product["sku"], product["version"]) for product in products] == [("A", 1), ("B", 2), ("C", 1)]


async def test_a_field_that_is_left_out_stays_and_null_empties(world: World):
    await put(world, item("A", price="1", unit="kg", barcodes=["ONE"], attributes={"a": "1"}, description="Text"))
    await put(world, item("A", description=None, attributes={}))
    product = await buyer(world).get("/products/A")
    assert (product["price"], product["unit"], product["barcodes"]) == ("1", "kg", ["ONE"])
    assert (product["description"], product["attributes"], product["version"]) == (None, {}, 2)


async def test_a_bad_product_never_fails_the_others(world: World):
    await put(world, item("OLD", barcodes=["ONE"]))
    results = await put(
        world, item("A"), item("B C"), 7, None, [], "text", {}, item("D", unit="furlong"), item("OLD", unit="kg"),
        item("E", barcodes=["ONE"]), item("A", name="Again"), item("F", price="1", sky="blue"), item("G"),
    )  # fmt: skip
    assert outcomes(results) == [
        201, "string_pattern_mismatch", "model_type", "model_type", "model_type", "model_type", "missing",
        "unknown_unit", "not_changeable", "barcode_taken", "duplicate", "extra_forbidden", 201,
    ]  # fmt: skip
    assert [result["sku"] for result in results] == [
        "A", None, None, None, None, None, None, "D", "OLD", "E", "A", "F", "G",
    ]  # fmt: skip
    assert results[9]["errors"][0]["pointer"] == "/barcodes/0"
    assert [product["sku"] for product in (await buyer(world).get("/products"))["items"]] == ["A", "G", "OLD"]
    assert (await buyer(world).get("/products/A"))["name"] == "Article A"


async def test_barcodes_change_hands_in_the_order_of_the_request(world: World):
    await put(world, item("A", barcodes=["ONE", "TWO"]), item("B", barcodes=["THREE"]))
    taken = await put(world, item("B", barcodes=["ONE", "THREE"]), item("A", barcodes=["TWO"]))
    assert outcomes(taken) == ["barcode_taken", 200]
    swapped = await put(
        world, item("A", barcodes=[]), item("B", barcodes=["TWO"]), item("C", barcodes=["THREE", "ONE"])
    )
    assert outcomes(swapped) == [200, 200, 201]
    assert (await buyer(world).get("/products/C"))["barcodes"] == ["THREE", "ONE"]
    assert (await buyer(world).get("/barcodes/TWO"))["sku"] == "B"
    assert outcomes(await put(world, item("D", barcodes=["X"]), item("E", barcodes=["X"]))) == [201, "barcode_taken"]


async def test_a_refused_product_frees_no_barcode(world: World):
    await put(world, item("A", barcodes=["ONE"]))
    results = await put(world, item("A", unit="kg", barcodes=[]), item("B", barcodes=["ONE"]))
    assert outcomes(results) == ["not_changeable", "barcode_taken"]
    assert (await buyer(world).get("/barcodes/ONE"))["sku"] == "A"


async def test_only_real_changes_are_in_history_and_events(world: World):
    made = await put(world, item("A"), item("B"), item("B"))
    await put(world, item("A", name="New"), item("B"), item("C", unit="furlong"))
    assert await put(world) == []
    events, _ = await read_events(world.context(SERVICE).database, after=0, limit=500)
    assert [(event["type"], event["subject"], event["data"]["version"]) for event in events] == [
        ("product.created", made[0]["id"], 1),
        ("product.created", made[1]["id"], 1),
        ("product.changed", made[0]["id"], 2),
    ]
    (newest, _) = (await buyer(world).get("/products/A/history"))["items"]
    assert newest["actor"] == "the buyer"
    assert newest["changes"] == {"name": {"from": "Article A", "to": "New"}}
    assert len((await buyer(world).get("/products/B/history"))["items"]) == 1


async def test_a_repeated_request_answers_the_same(world: World):
    body = {"products": [item("A"), item("B C")]}
    first = await buyer(world).request("POST", "/products/bulk", body, key="once")
    second = await buyer(world).request("POST", "/products/bulk", body, key="once")
    assert (second.json(), second.headers["Idempotent-Replay"]) == (first.json(), "true")
    reused = await buyer(world).post("/products/bulk", {"products": []}, key="once", expect=422)
    assert reused["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("product", "pointer"),
    [
        (r'{"sku": "A", "name": "\ud800"}', "/name"),
        (r'{"sku": "\ud800", "name": "A"}', "/sku"),
        (r'{"sku": "A", "name": "A", "\ud800": 1}', ""),
        (r'{"sku": "A", "name": "A", "attributes": {"\ud800": "1"}}', "/attributes/\ufffd\ufffd\ufffd/[key]"),
    ],
)
async def test_half_a_character_is_a_mistake_like_any_other(world: World, product: str, pointer: str):
    body = f'{{"products": [{product}, {{"sku": "B", "name": "B"}}]}}'
    answer = await buyer(world).request(
        "POST", "/products/bulk", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    assert outcomes(answer.json()["results"]) == ["string_unicode", 201]
    assert answer.json()["results"][0]["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("body", [{}, {"products": None}, {"products": {}}, {"products": [], "more": 1}, []])
async def test_it_refuses_what_is_no_batch(world: World, body: Any):
    await buyer(world).post("/products/bulk", body, expect=422)


async def test_it_takes_a_thousand_products_and_no_more(world: World):
    products = [item(f"S-{n:04}") for n in range(1001)]
    refused = await buyer(world).post("/products/bulk", {"products": products}, expect=422)
    assert (refused["errors"][0]["pointer"], refused["errors"][0]["code"]) == ("/products", "too_long")
    assert {result["status"] for result in await put(world, *products[:1000])} == {201}
    page = await buyer(world).get("/products", limit=1000)
    assert (len(page["items"]), page["next"]) == (1000, None)


async def test_a_thousand_products_take_as_many_statements_as_two(world: World):
    role = role_of("product_catalog")
    connection = await connect(
        world.url, user=role, password=world.passwords[role], application="test", schema="product_catalog"
    )
    statements: list[str] = []

    async def count_statements(count: int, text: str) -> int:
        statements.clear()
        products = [item(f"{count}-{n}", description=text, barcodes=[f"{text}-{count}-{n}"]) for n in range(count)]
        async with connection.transaction():
            answer = await upsert_products(connection, actor=BUYER, items=parse_batch(products))
        assert {type(result) for result in answer.results} == {Written}
        return len(statements)

    try:
        with connection.query_logger(lambda record: statements.append(record.query)):
            # The first time, the driver also asks about the types that it meets.
            await count_statements(1, "made")
            await count_statements(1, "changed")
            assert await count_statements(1000, "made") == await count_statements(2, "made") <= STATEMENTS_MAX
            assert await count_statements(1000, "changed") == await count_statements(2, "changed") <= STATEMENTS_MAX
    finally:
        await connection.close()


async def test_batches_of_the_same_products_in_opposite_orders_wait_for_each_other(world: World):
    products = [item(f"S-{n:02}", barcodes=[f"B-{n}"]) for n in range(40)]
    batches = [[product | {"name": f"Name {n}"} for product in products[:: 1 if n % 2 else -1]] for n in range(8)]
    results = await asyncio.gather(*(put(world, *batch) for batch in batches))
    statuses = [[result["status"] for result in result_list] for result_list in results]
    assert all(set(codes) <= {200, 201} for codes in statuses)
    made = sum(codes.count(201) for codes in statuses)
    assert made == len(products)
    final = (await buyer(world).get("/products"))["items"]
    assert {product["version"] for product in final} == {len(batches)}
    assert len({product["name"] for product in final}) == 1


async def test_batches_that_exchange_barcodes_at_once_leave_each_with_one_owner(world: World):
    codes = [f"B-{n}" for n in range(12)]
    await put(world, *(item(f"S-{n}") for n in range(6)))

    def deal(turn: int) -> list[Any]:
        dealt = codes[turn:] + codes[:turn]
        empty = [item(f"S-{n}", barcodes=[]) for n in range(6)]
        del empty[turn % 6 :]
        return empty + [item(f"S-{n}", barcodes=dealt[2 * n : 2 * n + 2]) for n in range(turn % 6, 6)]

    results = await asyncio.gather(*(put(world, *deal(turn)) for turn in range(8)))
    assert {code for result in results for code in outcomes(result)} <= {200, "barcode_taken", "duplicate"}
    products = (await buyer(world).get("/products"))["items"]
    held = [code for product in products for code in product["barcodes"]]
    assert len(held) == len(set(held)) > 0


SKUS, BARCODES, UNITS = ("A", "B", "C"), ("X", "Y", "Z"), ("each", "kg", "furlong")
ITEMS = st.fixed_dictionaries(
    {"sku": st.sampled_from(SKUS), "name": st.sampled_from(("One", "Two"))},
    optional={
        "unit": st.sampled_from(UNITS),
        "barcodes": st.lists(st.sampled_from(BARCODES), unique=True, max_size=3),
        "price": st.sampled_from((None, "1", "2.5", "-1")),
    },
)
Model = dict[str, dict[str, Any]]


def follow(model: Model, product: dict[str, Any]) -> Any:
    """What one product does to a plain dictionary: the specification in its simplest form."""
    if product.get("price") == "-1":
        return "decimal_range"
    before = model.get(product["sku"])
    after = (before or {"unit": "each", "barcodes": [], "price": None}) | product
    if before and before["unit"] != after["unit"]:
        return "not_changeable"
    if not before and after["unit"] == "furlong":
        return "unknown_unit"
    others = {code for sku, other in model.items() if sku != product["sku"] for code in other["barcodes"]}
    if others & set(after["barcodes"]):
        return "barcode_taken"
    model[product["sku"]] = after
    return 200 if before else 201


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(ITEMS, max_size=3, unique_by=lambda product: str(product["sku"])), min_size=1, max_size=4)
)
async def test_a_batch_does_what_single_requests_in_turn_would(world: World, batches: list[list[dict[str, Any]]]):
    connection = await world.connect_as_superuser("product_catalog")
    await connection.execute("TRUNCATE products, barcodes, product_changes, outbox")
    await connection.close()
    model: Model = {}
    for batch in batches:
        assert outcomes(await put(world, *batch)) == [follow(model, product) for product in batch]
    found = {
        product["sku"]: {field: product[field] for field in ("sku", "name", "unit", "barcodes", "price")}
        for product in (await buyer(world).get("/products"))["items"]
    }
    assert found == model


def test_a_batch_is_described_as_a_list_of_products():
    items = ProductBatch.model_json_schema()["properties"]["products"]["items"]
    assert items == NewProduct.model_json_schema()
