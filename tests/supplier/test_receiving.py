"""Receiving when something stops in between: each step may be the last one of its process."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from stockade.kit.context import Context
from stockade.kit.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Refusal,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from stockade.supplier.calls import is_final
from stockade.supplier.receipts import (
    Begun,
    begin_receipt,
    claim_attempt,
    claim_due_receipt,
    settle_receipt,
    withdraw_receipt,
)
from stockade.supplier.receiving import attempt, finish_receipts, give_up, take_into_stock
from stockade.supplier.shapes import NewReceipt
from tests.supplier.purchasing import (
    BUYER,
    SERVICE,
    count_stock,
    find_violations,
    found_company,
    goods,
    key_of,
    let_time_pass,
    send_order,
    wait_until,
    watch_line,
)
from tests.world import Api, World

LINE = {"sku": "A-1", "quantity": "10", "unit_cost": "2.5"}
KEY = "the-key-of-the-client"


async def begin(context: Context, order: dict[str, Any], body: dict[str, Any]) -> UUID:
    """The first step of a request, and no further: what a process leaves that dies now."""
    begun = await context.database.run(
        begin_receipt,
        actor=BUYER,
        key=key_of(order, body, KEY),
        order_id=UUID(order["id"]),
        new=NewReceipt.model_validate(body),
    )
    assert isinstance(begun, Begun)
    assert begun.is_mine
    return begun.receipt_id


async def check_posted_once(
    world: World, api: Api, order: dict[str, Any], body: dict[str, Any], receipt_id: UUID
) -> None:
    """The receipt ends posted, once; the client that asks again gets it; nothing is left over."""

    async def is_posted() -> bool:
        return (await api.get(f"/receipts/{receipt_id}"))["status"] == "posted"

    await wait_until(is_posted)
    receipt = await api.get(f"/receipts/{receipt_id}")
    again = await api.request("POST", f"/purchase-orders/{order['id']}/receive", body, key=KEY)
    assert (again.status_code, again.json()) == (201, receipt)
    assert again.headers["Idempotent-Replay"] == "true"
    assert await count_stock(api, "A-1") == 4
    after = await api.get(f"/purchase-orders/{order['id']}")
    assert (after["status"], after["lines"][0]["received"]) == ("partially_received", "4")
    assert len((await api.get("/movements", reference=receipt["number"]))["items"]) == 1
    assert await find_violations(world) == []


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_receipt_that_stopped_after_any_step_is_finished_by_the_next_process(world: World, steps: int):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    body, context = goods(order, "4"), world.context(SERVICE)
    receipt_id = await begin(context, order, body)
    if steps >= 2:
        movement_id = await take_into_stock(context, receipt_id)
        assert movement_id is not None
        if steps >= 3:
            await context.database.run(settle_receipt, receipt_id=receipt_id, movement_id=movement_id)
    await context.background.stop()
    await let_time_pass(world)
    async with World.open(world.url, world.passwords, admin_url=world.admin_url) as restarted:
        api = restarted.as_("manager", subject=BUYER.id)
        await check_posted_once(restarted, api, order, body, receipt_id)


async def test_a_refused_receipt_that_stopped_before_its_withdrawal_is_withdrawn_later(world: World):
    manager = await found_company(world, "A-1", tracking="lot")
    order = await send_order(manager, LINE)
    body, context = goods(order, "4"), world.context(SERVICE)
    receipt_id = await begin(context, order, body)
    with pytest.raises(Refusal, match="lot"):
        await take_into_stock(context, receipt_id)
    await let_time_pass(world)

    async def is_withdrawn() -> bool:
        return (await manager.request("GET", f"/receipts/{receipt_id}")).status_code == 404

    await wait_until(is_withdrawn)
    assert await manager.get(f"/purchase-orders/{order['id']}") == order
    assert await find_violations(world) == []
    refused = await manager.post(f"/purchase-orders/{order['id']}/receive", body, key=KEY, expect=422)
    assert refused["code"] == "lot_required"


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_lost_answer_is_told_and_made_good_later(world: World, cut: str):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    body, line = goods(order, "4"), watch_line(world, "inventory-service")
    line.cut = cut
    answer = await manager.request("POST", f"/purchase-orders/{order['id']}/receive", body, key=KEY)
    assert (answer.status_code, answer.json()["code"]) == (503, "receipt_pending")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (line.carried > 0) == (cut == "after")
    [pending] = (await manager.get("/receipts"))["items"]
    assert pending["status"] == "posting"
    assert (await manager.get(f"/purchase-orders/{order['id']}"))["lines"][0]["received"] == "0"
    line.cut = None
    await check_posted_once(world, manager, order, body, UUID(pending["id"]))


async def test_goods_under_way_count_against_the_order(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    receipt_id = await begin(world.context(SERVICE), order, goods(order, "4"))
    refused = await manager.post(f"/purchase-orders/{order['id']}/receive", goods(order, "7"), expect=409)
    assert refused["lines"][0]["allowed"] == "6"
    refused = await manager.post(f"/purchase-orders/{order['id']}/cancel", expect=409)
    assert (refused["code"], refused["current_status"]) == ("wrong_status", "sent")
    await manager.post(f"/purchase-orders/{order['id']}/close", expect=200)
    await attempt(world.context(SERVICE), receipt_id)
    closed = await manager.get(f"/purchase-orders/{order['id']}")
    assert (closed["status"], closed["lines"][0]["received"]) == ("closed", "4")


async def test_a_client_that_asks_again_waits_for_the_request_that_came_first(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    body, context = goods(order, "4"), world.context(SERVICE)
    receipt_id = await begin(context, order, body)
    again = asyncio.create_task(manager.post(f"/purchase-orders/{order['id']}/receive", body, key=KEY))
    await asyncio.sleep(0.3)
    assert not again.done()
    await attempt(context, receipt_id)
    assert (await again)["id"] == str(receipt_id)
    assert await count_stock(manager, "A-1") == 4


async def test_a_client_that_asks_again_goes_on_where_a_dead_process_stopped(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    body, context = goods(order, "4"), world.context(SERVICE)
    await context.background.stop()
    receipt_id = await begin(context, order, body)
    await let_time_pass(world)
    receipt = await manager.post(f"/purchase-orders/{order['id']}/receive", body, key=KEY)
    assert (receipt["id"], receipt["status"]) == (str(receipt_id), "posted")


async def test_a_client_that_waited_for_a_refused_request_hears_the_refusal(world: World):
    manager = await found_company(world, "A-1", tracking="lot")
    order = await send_order(manager, LINE)
    body, context = goods(order, "4"), world.context(SERVICE)
    receipt_id = await begin(context, order, body)
    again = asyncio.create_task(manager.request("POST", f"/purchase-orders/{order['id']}/receive", body, key=KEY))
    await asyncio.sleep(0.2)
    with pytest.raises(Refusal, match="lot"):
        await attempt(context, receipt_id)
    assert ((await again).status_code, (await again).json()["code"]) == (422, "lot_required")


async def test_one_attempt_at_a_time_holds_a_receipt(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    context = world.context(SERVICE)
    await context.background.stop()
    receipt_id = await begin(context, order, goods(order, "4"))
    assert not await context.database.run(claim_attempt, receipt_id=receipt_id)
    await let_time_pass(world)
    claims = await asyncio.gather(*(context.database.run(claim_attempt, receipt_id=receipt_id) for _ in range(5)))
    assert sorted(claims) == [False] * 4 + [True]


async def leave_receipts(world: World, manager: Api, count: int) -> None:
    """As many receipts as said, each of an order of its own, as a process leaves them that dies in the first step."""
    context = world.context(SERVICE)
    await context.background.stop()
    for _ in range(count):
        order = await send_order(manager, LINE)
        body = goods(order, "4")
        key = key_of(order, body, f"key-of-{order['id']}")
        new = NewReceipt.model_validate(body)
        await context.database.run(begin_receipt, actor=BUYER, key=key, order_id=UUID(order["id"]), new=new)
    await let_time_pass(world)


async def test_a_process_takes_another_receipt_than_the_one_that_is_just_being_taken(world: World):
    await leave_receipts(world, await found_company(world, "A-1"), 2)
    one, other = await world.connect("supplier"), await world.connect("supplier")
    try:
        async with one.transaction(), asyncio.timeout(5):
            first = await claim_due_receipt(one)
            assert first is not None
            assert await claim_due_receipt(other) not in (None, first)
            assert await claim_due_receipt(other) is None
    finally:
        await one.close()
        await other.close()


async def test_many_processes_finish_many_receipts_once_each(world: World):
    manager = await found_company(world, "A-1")
    context = world.context(SERVICE)
    await leave_receipts(world, manager, 6)
    await asyncio.gather(*(finish_receipts(context) for _ in range(3)))
    receipts = (await manager.get("/receipts"))["items"]
    assert [receipt["status"] for receipt in receipts] == ["posted"] * 6
    assert await count_stock(manager, "A-1") == 24
    assert await find_violations(world) == []


async def test_settling_and_withdrawing_twice_changes_nothing(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    context = world.context(SERVICE)
    receipt_id = await begin(context, order, goods(order, "4"))
    first = await attempt(context, receipt_id)
    movement_id = await take_into_stock(context, receipt_id)
    assert movement_id is not None
    assert await context.database.run(settle_receipt, receipt_id=receipt_id, movement_id=movement_id) == first
    await context.database.run(withdraw_receipt, receipt_id=receipt_id)
    assert (await manager.get(f"/receipts/{receipt_id}"))["status"] == "posted"
    assert (await manager.get(f"/purchase-orders/{order['id']}"))["lines"][0]["received"] == "4"


async def test_what_says_nothing_about_the_movement_never_withdraws_its_receipt(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    context = world.context(SERVICE)
    await context.background.stop()
    receipt_id = await begin(context, order, goods(order, "4"))
    inventory = context.clients["inventory-service"]
    # The same key with another body, as after an upgrade that words movements differently: inventory has it already.
    await inventory.post("/api/v1/movements", {
        "type": "receipt", "lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "4"}],
    }, key=f"receipt-{receipt_id}")  # fmt: skip
    with pytest.raises(Refusal) as caught:
        await attempt(context, receipt_id)
    assert caught.value.code == "receipt_pending"
    assert (await manager.get(f"/receipts/{receipt_id}"))["status"] == "posting"


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Invalid("", code="unknown_sku"), True),
        (Conflict("", code="insufficient_stock"), True),
        (TooLarge("", code="body_too_large"), True),
        (Invalid("", code="occurred_in_future"), False),
        (Invalid("", code="idempotency_key_reused"), False),
        (Unauthenticated(""), False),
        (Forbidden(""), False),
        (NotFound("", code="no_such_route"), False),
        (TooMany(""), False),
        (Unavailable(""), False),
    ],
)
def test_only_a_decision_about_the_movement_is_final(refusal: Refusal, expected: bool):
    assert is_final(refusal) is expected


async def test_nobody_repeats_a_movement_whose_key_may_be_forgotten(world: World):
    await leave_receipts(world, await found_company(world, "A-1"), 1)
    database = world.context(SERVICE).database
    owner = await world.connect("supplier", role="stockade_owner")
    try:
        receipt_id = await owner.fetchval("UPDATE receipts SET received_at = now() - interval '6 days' RETURNING id")
        assert await database.run(claim_due_receipt) is None
        assert not await database.run(claim_attempt, receipt_id=receipt_id)
        await owner.execute("UPDATE receipts SET received_at = now() - interval '5 days 23 hours'")
        assert await database.run(claim_due_receipt) == receipt_id
    finally:
        await owner.close()


async def test_each_failed_attempt_waits_longer_than_the_one_before(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    context, line = world.context(SERVICE), watch_line(world, "inventory-service")
    await context.background.stop()
    line.cut = "before"
    receipt_id = await begin(context, order, goods(order, "4"))
    waits: list[int] = []
    connection = await world.connect("supplier")
    try:
        for _ in range(9):
            with pytest.raises(Refusal) as caught:
                await take_into_stock(context, receipt_id)
            await give_up(context, receipt_id, caught.value)
            waits.append(
                await connection.fetchval(
                    "SELECT round(extract(epoch FROM next_attempt_at - now()))::int FROM receipts WHERE id = $1",
                    receipt_id,
                )
            )
            await let_time_pass(world)
            assert await context.database.run(claim_attempt, receipt_id=receipt_id)
    finally:
        await connection.close()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_the_audit_finds_a_receipt_that_hangs(world: World):
    manager = await found_company(world, "A-1")
    order = await send_order(manager, LINE)
    await world.context(SERVICE).background.stop()
    receipt_id = await begin(world.context(SERVICE), order, goods(order, "4"))
    assert await find_violations(world) == []
    owner = await world.connect("supplier", role="stockade_owner")
    try:
        await owner.execute("UPDATE receipts SET deadline = now() - interval '9 minutes' WHERE id = $1", receipt_id)
        assert await find_violations(world) == []
        await owner.execute("UPDATE receipts SET deadline = now() - interval '11 minutes' WHERE id = $1", receipt_id)
    finally:
        await owner.close()
    [finding] = await find_violations(world)
    assert (finding["id"], finding["violations"]) == ("I16", 1)
