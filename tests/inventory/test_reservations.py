"""Reservations: nobody is promised what is not there, and every promise ends in a known way."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stockade.postgres import OWNER_ROLE
from tests.conftest import ServerThread
from tests.inventory.stocked import add_items, check_integrity, level, receive, stock
from tests.lasting import lasting_world
from tests.world import Api, World

LINE = {"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}
NOBODY = "0190a000-0000-7000-8000-000000000000"


async def reserve(api: Api, *lines: dict[str, str] | str, expect: int = 201, **more: Any) -> Any:
    """A reservation of lines, each a quantity of A-1 or a whole line."""
    body = [LINE | ({"quantity": line} if isinstance(line, str) else line) for line in lines]
    return await api.post("/reservations", {"lines": body} | more, expect=expect)


async def confirm(api: Api, held: Any, expect: int = 200) -> Any:
    return await api.post(f"/reservations/{held['id']}/confirm", expect=expect)


async def release(api: Api, held: Any, expect: int = 200) -> Any:
    return await api.post(f"/reservations/{held['id']}/release", expect=expect)


async def consume(api: Api, held: Any, *quantities: str, expect: int = 201, **options: Any) -> Any:
    lines = [{"line": number, "quantity": quantity} for number, quantity in enumerate(quantities, start=1)]
    return await api.post(f"/reservations/{held['id']}/consume", {"lines": lines}, expect=expect, **options)


async def promised(api: Api) -> tuple[str, str, str]:
    now = await level(api)
    return now["reserved"], now["allocated"], now["available"]


async def let_expire(world: World, held: Any) -> None:
    """Let a hold's time be over, long before its sweeper comes by."""
    owner = await world.connect("inventory", role=OWNER_ROLE)
    await owner.execute("UPDATE reservations SET expires_at = now() - interval '1 second' WHERE id = $1", held["id"])
    await owner.close()


@pytest.fixture
async def unswept(world: World) -> World:
    """A world in which nobody sweeps by himself."""
    await world.context("inventory-service").background.stop()
    return world


async def test_a_hold_takes_from_what_is_available_and_not_from_what_is_there(world: World):
    api = await stock(world, "10")
    held = await reserve(api, "4", reference="SO-1")
    assert {name: held[name] for name in ("reference", "status")} == {"reference": "SO-1", "status": "held"}
    assert held["lines"] == [
        {"line": 1, "sku": "A-1", "warehouse": "MAIN", "requested": "4", "quantity": "4", "consumed": "0"}
    ]
    left = datetime.fromisoformat(held["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=870) < left <= timedelta(seconds=900)
    now = await level(api)
    assert (now["on_hand"], now["reserved"], now["available"]) == ("10", "4", "6")
    assert await api.get(f"/reservations/{held['id']}") == held
    await check_integrity(world)


async def test_it_refuses_more_than_is_available_says_what_is_and_holds_nothing(world: World):
    api = await stock(world, "10", "A-1", "B-1")
    await reserve(api, "4")
    refused = await reserve(api, {"sku": "B-1", "quantity": "1"}, "7", expect=409)
    assert refused["code"] == "insufficient_stock"
    assert refused["lines"] == [{"sku": "A-1", "warehouse": "MAIN", "requested": "7", "available": "6"}]
    assert await promised(api) == ("4", "0", "6")
    assert (await level(api, "B-1"))["reserved"] == "0"


async def test_lines_of_the_same_goods_are_one_demand(world: World):
    api = await stock(world, "10")
    refused = await reserve(api, "6", "5", expect=409)
    assert refused["lines"] == [{"sku": "A-1", "warehouse": "MAIN", "requested": "11", "available": "10"}]
    held = await reserve(api, "6", "4")
    assert [line["quantity"] for line in held["lines"]] == ["6", "4"]


async def test_lines_keep_the_order_of_the_request(world: World):
    api = await stock(world, "10", "C-1", "A-1", "B-1")
    skus = ["B-1", "A-1", "C-1", "A-1"]
    held = await reserve(api, *({"sku": sku} for sku in skus))
    assert [(line["line"], line["sku"]) for line in held["lines"]] == list(enumerate(skus, start=1))


async def test_what_was_never_there_is_not_available(world: World):
    api = await stock(world, "10")
    await api.post("/warehouses", {"code": "EAST", "name": "East"})
    refused = await reserve(api, {"warehouse": "EAST"}, expect=409)
    assert refused["lines"][0]["available"] == "0"


async def test_partial_mode_grants_what_there_is(world: World):
    api = await stock(world, "5", "A-1", "B-1")
    await reserve(api, {"sku": "B-1", "quantity": "5"})
    held = await reserve(api, "3", {"sku": "B-1"}, "4", mode="partial")
    assert [(line["requested"], line["quantity"]) for line in held["lines"]] == [("3", "3"), ("1", "0"), ("4", "2")]
    assert await promised(api) == ("5", "0", "0")
    refused = await reserve(api, "1", {"sku": "B-1"}, mode="partial", expect=409)
    assert [line["available"] for line in refused["lines"]] == ["0", "0"]
    await confirm(api, held)
    await release(api, held)
    assert await promised(api) == ("0", "0", "5")
    await check_integrity(world)


async def test_damaged_and_held_back_goods_are_not_promised(world: World):
    api = await stock(world, "10")
    change = {"type": "status_change", "lines": [LINE | {"quantity": "4", "to_status": "quality_hold"}]}
    await api.post("/movements", change)
    assert (await reserve(api, "7", expect=409))["lines"][0]["available"] == "6"


@pytest.mark.parametrize(
    "movement",
    [
        {"type": "issue", "lines": [LINE | {"quantity": "3"}]},
        {"type": "adjustment", "reason": "shrinkage", "lines": [LINE | {"quantity": "-3"}]},
        {"type": "status_change", "lines": [LINE | {"quantity": "3", "to_status": "damaged"}]},
        {"type": "transfer", "lines": [LINE | {"quantity": "3", "to_warehouse": "EAST"}]},
    ],
    ids=lambda movement: movement["type"],
)
@pytest.mark.parametrize("confirmed", [False, True])
async def test_no_movement_takes_what_is_promised(world: World, movement: dict[str, Any], confirmed: bool):
    api = await stock(world, "10")
    await api.post("/warehouses", {"code": "EAST", "name": "East"})
    held = await reserve(api, "8")
    if confirmed:
        await confirm(api, held)
    refused = await api.post("/movements", movement, expect=409)
    assert (refused["code"], refused["lines"][0]["available"]) == ("insufficient_stock", "2")
    (line,) = movement["lines"]
    await api.post("/movements", movement | {"lines": [line | {"quantity": line["quantity"].replace("3", "2")}]})
    assert (await level(api))["available"] == "0"
    await check_integrity(world)


async def test_a_receipt_whose_goods_are_promised_cannot_be_reversed(world: World):
    api = await stock(world, "10")
    receipt = (await api.get("/movements"))["items"][0]
    held = await reserve(api, "1")
    assert (await api.post(f"/movements/{receipt['id']}/reverse", expect=409))["code"] == "insufficient_stock"
    await release(api, held)
    await api.post(f"/movements/{receipt['id']}/reverse")
    assert (await level(api))["on_hand"] == "0"


async def test_confirming_turns_a_hold_into_an_allocation_once(world: World):
    api = await stock(world, "10")
    held = await reserve(api, "4")
    confirmed = await confirm(api, held)
    assert (confirmed["status"], await promised(api)) == ("confirmed", ("0", "4", "6"))
    assert await confirm(api, held) == confirmed
    assert await promised(api) == ("0", "4", "6")
    await check_integrity(world)


async def test_an_expired_hold_cannot_be_confirmed_whether_it_was_swept_or_not(unswept: World):
    api = await stock(unswept, "10")
    held = await reserve(api, "4")
    await let_expire(unswept, held)
    assert (await confirm(api, held, expect=409))["code"] == "reservation_expired"
    await reserve(api, "10")  # Sweeps, because it needs what the hold has.
    assert (await api.get(f"/reservations/{held['id']}"))["status"] == "expired"
    assert (await confirm(api, held, expect=409))["code"] == "reservation_expired"
    assert (await release(api, held))["status"] == "expired"
    assert await promised(api) == ("10", "0", "0")
    await check_integrity(unswept)


async def test_a_hold_whose_time_is_over_does_not_count_before_anybody_sweeps(unswept: World):
    api = await stock(unswept, "10")
    await let_expire(unswept, await reserve(api, "10"))
    assert await promised(api) == ("0", "0", "10")
    assert (await api.get("/stock/A-1"))["available"] == "10"
    held = await reserve(api, "10")
    assert held["status"] == "held"
    await check_integrity(unswept)


async def test_more_expired_holds_than_one_sweep_takes_do_not_count_either(unswept: World):
    api = await stock(unswept, "250")
    bulk = [{"key": f"k{number}", "expires_in_s": 1, "lines": [LINE]} for number in range(250)]
    await api.post("/reservations/bulk", {"reservations": bulk}, expect=200)
    await asyncio.sleep(1.1)
    assert (await level(api))["available"] == "250"
    await reserve(api, "250")
    await check_integrity(unswept)


async def test_an_issue_may_take_what_an_expired_hold_had(unswept: World):
    api = await stock(unswept, "10")
    await let_expire(unswept, await reserve(api, "10"))
    await api.post("/movements", {"type": "issue", "lines": [LINE | {"quantity": "10"}]})
    assert (await level(api))["on_hand"] == "0"
    await check_integrity(unswept)


async def test_the_sweeper_ends_what_is_over_by_itself(world: World):
    api = await stock(world, "10")
    held, confirmed = await reserve(api, "4"), await confirm(api, await reserve(api, "2"))
    for each in (held, confirmed):
        await let_expire(world, each)
    for _ in range(50):
        await asyncio.sleep(0.2)
        if (await api.get(f"/reservations/{held['id']}"))["status"] == "expired":
            break
    assert await promised(api) == ("0", "2", "8")
    assert (await api.get(f"/reservations/{confirmed['id']}"))["status"] == "confirmed"
    await check_integrity(world)


async def test_releasing_gives_back_and_is_done_once(world: World):
    api = await stock(world, "10")
    held = await reserve(api, "4")
    released = await release(api, held)
    assert (released["status"], await promised(api)) == ("released", ("0", "0", "10"))
    assert await release(api, held) == released
    assert (await confirm(api, held, expect=409))["code"] == "reservation_released"
    assert await promised(api) == ("0", "0", "10")


async def test_a_confirmed_reservation_can_be_released(world: World):
    api = await stock(world, "10")
    held = await confirm(api, await reserve(api, "4"))
    assert (await release(api, held))["status"] == "released"
    assert await promised(api) == ("0", "0", "10")
    await check_integrity(world)


async def test_consuming_ships_in_parts_and_ends_with_the_last(world: World):
    api = await stock(world, "10", "A-1", "B-1")
    held = await confirm(api, await reserve(api, "4", {"sku": "B-1", "quantity": "1"}, reference="SO-1"))
    first = await consume(api, held, "3")
    assert first["reservation"]["status"] == "partially_consumed"
    assert [line["consumed"] for line in first["reservation"]["lines"]] == ["3", "0"]
    movement = await api.get(f"/movements/{first['movement_id']}")
    assert (movement["type"], movement["reference"]) == ("issue", "SO-1")
    assert [(entry["location"], entry["quantity"]) for entry in movement["entries"]] == [
        ("STOCK", "-3"),
        ("@customer", "3"),
    ]
    now = await level(api)
    assert (now["on_hand"], now["allocated"], now["available"]) == ("7", "1", "6")
    last = await consume(api, held, "1", "1")
    assert last["reservation"]["status"] == "consumed"
    assert (await consume(api, held, "1", expect=409))["state"] == "consumed"
    assert (await release(api, held))["status"] == "consumed"
    await check_integrity(world)


async def test_it_refuses_to_consume_more_than_is_left(world: World):
    api = await stock(world, "10")
    held = await confirm(api, await reserve(api, "4"))
    await consume(api, held, "3")
    refused = await consume(api, held, "2", expect=409)
    assert (refused["code"], refused["lines"]) == ("over_consumed", [{"line": 1, "requested": "2", "left": "1"}])
    body = {"lines": [{"line": 1, "quantity": "0.5"}, {"line": 1, "quantity": "0.6"}]}
    refused = await api.post(f"/reservations/{held['id']}/consume", body, expect=409)
    assert refused["lines"] == [{"line": 1, "requested": "1.1", "left": "1"}]
    assert (await level(api))["on_hand"] == "7"


async def test_what_is_left_of_a_partial_shipment_can_be_given_back(world: World):
    api = await stock(world, "10")
    held = await confirm(api, await reserve(api, "4"))
    await consume(api, held, "3")
    assert (await release(api, held))["status"] == "consumed"
    now = await level(api)
    assert (now["on_hand"], now["allocated"], now["available"]) == ("7", "0", "7")
    await check_integrity(world)


@pytest.mark.parametrize("state", ["held", "released", "expired"])
async def test_only_what_is_confirmed_can_be_consumed(unswept: World, state: str):
    api = await stock(unswept, "10")
    held = await reserve(api, "4")
    if state == "released":
        await release(api, held)
    elif state == "expired":
        await let_expire(unswept, held)
        await reserve(api, "10")
    refused = await consume(api, held, "1", expect=409)
    assert (refused["code"], refused["state"]) == ("not_confirmed", state)


async def test_consuming_the_same_twice_ships_once(world: World):
    api = await stock(world, "10")
    held = await confirm(api, await reserve(api, "4"))
    answers = [await consume(api, held, "2", key="ship-1") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert (await level(api))["on_hand"] == "8"


async def test_the_lot_that_expires_first_is_shipped_first(world: World):
    await add_items(world, "L-1", tracking="lot")
    api = world.as_("manager")
    await api.post("/warehouses", {"code": "MAIN", "name": "Main"})
    await receive(api, "5", "L-1", lot="LATE", expires_on="2031-01-01")
    await receive(api, "5", "L-1", lot="SOON", expires_on="2030-01-01")
    held = await confirm(api, await reserve(api, {"sku": "L-1", "quantity": "7"}))
    movement = await api.get(f"/movements/{(await consume(api, held, '7'))['movement_id']}")
    taken = [(entry["lot"], entry["quantity"]) for entry in movement["entries"] if entry["location"] == "STOCK"]
    assert taken == [("SOON", "-5"), ("LATE", "-2")]


async def test_a_shipment_that_is_reversed_brings_the_goods_back(world: World):
    api = await stock(world, "10")
    held = await confirm(api, await reserve(api, "4"))
    shipped = await consume(api, held, "4")
    await api.post(f"/movements/{shipped['movement_id']}/reverse")
    now = await level(api)
    assert (now["on_hand"], now["allocated"], now["available"]) == ("10", "0", "10")
    await check_integrity(world)


async def test_every_step_is_told_as_an_event(world: World):
    api = await stock(world, "10")
    held = await confirm(api, await reserve(api, "4"))
    await consume(api, held, "3")
    await release(api, held)
    connection = await world.connect("inventory")
    rows = await connection.fetch("SELECT type FROM outbox WHERE subject = $1 ORDER BY position", held["id"])
    await connection.close()
    assert [row["type"].removeprefix("reservation.") for row in rows] == ["held", "confirmed", "consumed", "released"]


async def test_reservations_are_listed_by_reference_and_status_in_pages(world: World):
    api = await stock(world, "100")
    made = [await reserve(api, "1", reference=f"SO-{number % 2}") for number in range(7)]
    await release(api, made[0])
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await api.get("/reservations?limit=3" + (f"&cursor={cursor}" if cursor else ""))
        found += [item["id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert found == [held["id"] for held in reversed(made)]
    by_reference = await api.get("/reservations", reference="SO-1")
    assert [item["id"] for item in by_reference["items"]] == [made[number]["id"] for number in (5, 3, 1)]
    assert [item["id"] for item in (await api.get("/reservations", status="released"))["items"]] == [made[0]["id"]]


async def test_a_bulk_has_one_outcome_for_each_in_order(world: World):
    api = await stock(world, "3")
    wanted = [
        {"key": "a", "lines": [LINE]}, {"key": "b", "lines": [LINE | {"quantity": "9"}]},
        {"key": "c", "lines": [LINE | {"sku": "NOPE"}]}, {"key": "a", "lines": [LINE]},
        {"key": "a", "lines": [LINE | {"quantity": "2"}]}, {"key": "d", "lines": [LINE | {"quantity": "2"}]},
    ]  # fmt: skip
    results = (await api.post("/reservations/bulk", {"reservations": wanted}, expect=200))["results"]
    codes = [(outcome["status"], (outcome["problem"] or {}).get("code")) for outcome in results]
    assert codes == [
        (201, None), (409, "insufficient_stock"), (422, "unknown_sku"), (201, None), (422, "idempotency_key_reused"), (201, None),
    ]  # fmt: skip
    assert results[0]["reservation"] == results[3]["reservation"]
    assert await promised(api) == ("3", "0", "0")
    again = (await api.post("/reservations/bulk", {"reservations": wanted}, expect=200))["results"]
    assert [outcome["reservation"] for outcome in again] == [outcome["reservation"] for outcome in results]
    assert await promised(api) == ("3", "0", "0")
    await check_integrity(world)


@pytest.fixture(scope="module")
async def stocked(postgres: ServerThread, template: str, request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    """A world with ten of A-1, for requests that change nothing."""
    async with lasting_world(postgres, template, request) as world:
        await stock(world, "10")
        yield world


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"lines": []}, "too_short", "/lines"),
        ({"lines": [LINE] * 257}, "too_long", "/lines"),
        ({"lines": [LINE | {"quantity": "0"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "-1"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "0.0000001"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": "1e3"}]}, "decimal_range", "/lines/0/quantity"),
        ({"lines": [LINE | {"quantity": 1}]}, "decimal_string", "/lines/0/quantity"),
        ({"lines": [LINE, LINE | {"sku": "NOPE"}]}, "unknown_sku", "/lines/1/sku"),
        ({"lines": [LINE | {"warehouse": "NOPE"}]}, "unknown_warehouse", "/lines/0/warehouse"),
        ({"lines": [LINE | {"sku": "a b"}]}, "string_pattern_mismatch", "/lines/0/sku"),
        ({"lines": [LINE | {"location": "STOCK"}]}, "extra_forbidden", "/lines/0/location"),
        ({"lines": [{"sku": "A-1", "warehouse": "MAIN"}]}, "missing", "/lines/0/quantity"),
        ({"expires_in_s": 0}, "greater_than_equal", "/expires_in_s"),
        ({"expires_in_s": 30 * 86_400 + 1}, "less_than_equal", "/expires_in_s"),
        ({"expires_in_s": 1.5}, "int_from_float", "/expires_in_s"),
        ({"mode": "some"}, "literal_error", "/mode"),
        ({"reference": ""}, "string_too_short", "/reference"),
        ({"reference": "x" * 129}, "string_too_long", "/reference"),
        ({"reference": "a\u0000"}, "control_character", "/reference"),
        ({"bogus": 1}, "extra_forbidden", "/bogus"),
    ],
)
async def test_senseless_requests_are_refused_with_a_pointer(stocked: World, change: Any, code: str, pointer: str):
    api = stocked.as_("sales")
    answer = await api.post("/reservations", {"lines": [LINE]} | change, expect=422)
    assert (answer["errors"][0]["code"], answer["errors"][0]["pointer"]) == (code, pointer)
    assert await promised(api) == ("0", "0", "10")


@pytest.mark.parametrize(
    ("lines", "code", "pointer"),
    [
        ([], "too_short", "/lines"),
        ([{"line": 1, "quantity": "1"}] * 257, "too_long", "/lines"),
        ([{"line": 0, "quantity": "1"}], "greater_than_equal", "/lines/0/line"),
        ([{"line": 257, "quantity": "1"}], "less_than_equal", "/lines/0/line"),
        ([{"line": 1, "quantity": "0"}], "decimal_range", "/lines/0/quantity"),
        ([{"line": 1, "quantity": 1}], "decimal_string", "/lines/0/quantity"),
        ([{"line": 1, "quantity": "1"}, {"line": 2, "quantity": "1"}], "unknown_line", "/lines/1/line"),
    ],
)
async def test_senseless_consumptions_are_refused_with_a_pointer(stocked: World, lines: Any, code: str, pointer: str):
    api = stocked.as_("manager")
    held = await confirm(api, await reserve(api, "1"))
    answer = await api.post(f"/reservations/{held['id']}/consume", {"lines": lines}, expect=422)
    assert (answer["errors"][0]["code"], answer["errors"][0]["pointer"]) == (code, pointer)
    await release(api, held)


@pytest.mark.parametrize("change", [{"reservations": []}, {"reservations": [{"key": "k", "lines": [LINE]}] * 257}])
async def test_a_bulk_is_bounded(stocked: World, change: Any):
    await stocked.as_("sales").post("/reservations/bulk", change, expect=422)


@pytest.mark.parametrize("key", ["", "a b", "x" * 129, None])
async def test_every_part_of_a_bulk_needs_a_good_key(stocked: World, key: str | None):
    part = {"lines": [LINE]} | ({} if key is None else {"key": key})
    await stocked.as_("sales").post("/reservations/bulk", {"reservations": [part]}, expect=422)


PATHS = ["/reservations/{}", "/reservations/{}/confirm", "/reservations/{}/release", "/reservations/{}/consume"]


@pytest.mark.parametrize("path", PATHS)
async def test_an_unknown_reservation_is_not_found_and_a_bad_id_refused(stocked: World, path: str):
    api = stocked.as_("manager")
    method, body = ("GET", None) if path == PATHS[0] else ("POST", None)
    if path.endswith("consume"):
        body = {"lines": [{"line": 1, "quantity": "1"}]}
    missing = await api.request(method, path.format(NOBODY), body)
    assert (missing.status_code, missing.json()["code"]) == (404, "reservation_not_found")
    assert (await api.request(method, path.format("seven"), body)).status_code == 422


@pytest.mark.parametrize("path", ["/reservations", f"/reservations/{NOBODY}/consume"])
async def test_what_moves_stock_needs_a_key(stocked: World, path: str):
    body = {"lines": [LINE if path == "/reservations" else {"line": 1, "quantity": "1"}]}
    answer = await stocked.as_("manager").post(path, body, key=None, expect=428)
    assert answer["code"] == "idempotency_key_required"


@pytest.mark.parametrize("role", ["purchasing", "auditor", "viewer"])
async def test_who_only_reads_cannot_reserve(stocked: World, role: str):
    api = stocked.as_(role)
    await api.get("/reservations")
    for path, body in (
        ("/reservations", {"lines": [LINE]}),
        ("/reservations/bulk", {"reservations": [{"key": "k", "lines": [LINE]}]}),
        (f"/reservations/{NOBODY}/confirm", None),
        (f"/reservations/{NOBODY}/release", None),
    ):
        assert (await api.post(path, body, expect=403))["needs"] == "reservations:write"


@pytest.mark.parametrize("role", ["sales", "purchasing", "auditor", "viewer"])
async def test_who_does_not_move_goods_cannot_ship(stocked: World, role: str):
    body = {"lines": [{"line": 1, "quantity": "1"}]}
    refused = await stocked.as_(role).post(f"/reservations/{NOBODY}/consume", body, expect=403)
    assert refused["needs"] == "movements:write"


async def test_nobody_signs_in_and_nobody_reserves(stocked: World):
    await stocked.anonymous().post("/reservations", {"lines": [LINE]}, expect=401)
    await stocked.anonymous().get(f"/reservations/{NOBODY}", expect=401)


@pytest.mark.parametrize("query", [{"status": "Held!"}, {"limit": "0"}, {"cursor": "x"}, {"reference": ""}])
async def test_a_senseless_list_is_refused(stocked: World, query: dict[str, Any]):
    await stocked.as_("viewer").get("/reservations", expect=422, **query)
