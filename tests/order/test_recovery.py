"""Crashes: every saga is stopped after each of its steps and in the middle of them, and another process finishes it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from stockade.kit.auth import Actor
from stockade.kit.context import Context
from stockade.kit.idempotency import RequestKey, fingerprint_of
from stockade.kit.ids import uuid7
from stockade.order import allocation_saga, calls, return_saga, shipment_saga
from stockade.order.allocations import Allocation, begin_allocation, load_allocation
from stockade.order.orders import begin_order, cancel_order
from stockade.order.recovery import finish_open_sagas
from stockade.order.returns import begin_return, load_return
from stockade.order.shapes import NewOrder, NewReturn
from stockade.order.shipments import begin_shipment, load_posting
from tests.order.selling import (
    amounts,
    check_integrity,
    execute,
    fetch,
    make_due,
    only_allocation,
    open_shop,
    order_of,
    orders_context,
    place,
    receive,
    restarted,
    stock_of,
)
from tests.world import Api, World

_ROUNDS_MAX = 50
_OPEN = """
    SELECT id FROM allocations WHERE step IN ('hold', 'confirm', 'undo', 'release')
    UNION ALL SELECT id FROM shipments WHERE status = 'posting'
    UNION ALL SELECT id FROM returns WHERE status = 'posting'
"""
SELLER = Actor(id=str(uuid7()), kind="user", permissions=frozenset())


def seller(world: World) -> Api:
    return world.as_("manager", subject=SELLER.id)


async def begin(world: World, body: dict[str, Any], key: str = "k") -> Allocation:
    """The first transaction of POST /orders with this key, and nothing more."""
    order = NewOrder.model_validate(body)
    request_key = RequestKey(key, fingerprint_of("POST", "/api/v1/orders", _encode(body)))
    begun = await orders_context(world).database.run(
        begin_order, actor=SELLER, key=request_key, order=order, warehouse="MAIN"
    )
    assert begun.state is not None
    return begun.state


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


async def find_violations(world: World, invariant: str) -> dict[str, Any]:
    """What the order-service says of an invariant."""
    report = await world.as_("auditor").get("/integrity")
    wanted = (invariant, "order-service")
    return next(finding for finding in report["invariants"] if (finding["id"], finding["service"]) == wanted)


async def recover(world: World) -> None:
    """This process does nothing in the background any more, and another one takes up what is open, until nothing is."""
    await orders_context(world).background.stop()
    async with restarted(world) as other:
        for _ in range(_ROUNDS_MAX):
            await make_due(world)
            await finish_open_sagas(orders_context(other))
            if not await fetch(world, _OPEN):
                return
    raise AssertionError("something stays open")


async def do_nothing(_: Context, __: Allocation) -> None:
    """The crash came at once."""


async def hold_only(context: Context, allocation: Allocation) -> None:
    """The crash came between the answer of the inventory-service and the transaction that notes it."""
    await allocation_saga._call_hold(context, allocation)


async def take_hold(context: Context, allocation: Allocation) -> None:
    await allocation_saga.advance(context, allocation.id)


async def confirm_only(context: Context, allocation: Allocation) -> None:
    progress = await allocation_saga.advance(context, allocation.id)
    assert progress.state is not None
    assert progress.state.reservation_id is not None
    inventory = context.clients["inventory-service"]
    await calls.confirm(inventory, reservation_id=progress.state.reservation_id, person="x")


async def take_both(context: Context, allocation: Allocation) -> None:
    await allocation_saga.advance(context, allocation.id)
    await allocation_saga.advance(context, allocation.id)


Stop = Callable[[Context, Allocation], Awaitable[None]]
STOPS = [do_nothing, hold_only, take_hold, confirm_only, take_both]
OPEN_STOPS = STOPS[:-1]


@pytest.mark.parametrize("stop", STOPS)
async def test_an_order_that_was_interrupted_is_finished_by_another_process(world: World, stop: Stop):
    await open_shop(world)
    api = seller(world)
    body = order_of(("A-1", "4"))
    await stop(orders_context(world), await begin(world, body))
    await recover(world)
    ((order_id,),) = await fetch(world, "SELECT id FROM orders")
    order = await api.get(f"/orders/{order_id}")
    assert (order["status"], amounts(order)) == ("allocated", {"allocated": "4"})
    assert [r["status"] for r in (await api.get("/reservations"))["items"]] == ["confirmed"]
    assert await stock_of(api) == ("10", "4", "6")
    # The client that never got an answer asks again and gets it.
    assert await api.post("/orders", body, key="k") == order
    await check_integrity(world)


@pytest.mark.parametrize("stop", OPEN_STOPS)
async def test_an_order_that_was_interrupted_is_finished_by_its_own_repetition(world: World, stop: Stop):
    await open_shop(world)
    body = order_of(("A-1", "4"))
    await stop(orders_context(world), await begin(world, body))
    order = await seller(world).post("/orders", body, key="k")
    assert (order["status"], amounts(order)) == ("allocated", {"allocated": "4"})
    assert len(await fetch(world, "SELECT id FROM orders")) == 1
    await check_integrity(world)


@pytest.mark.parametrize("stop", OPEN_STOPS)
async def test_an_order_past_its_deadline_leaves_nothing(world: World, stop: Stop):
    api = await open_shop(world)
    body = order_of(("A-1", "4"))
    await stop(orders_context(world), await begin(world, body))
    await execute(world, "order", "UPDATE allocations SET deadline = now() - interval '1 second'")
    await recover(world)
    assert await fetch(world, "SELECT id FROM orders") == []
    assert await fetch(world, "SELECT key FROM idempotency_keys") == []
    assert {r["status"] for r in (await api.get("/reservations"))["items"]} <= {"released"}
    assert await stock_of(api) == ("10", "0", "10")
    assert (await seller(world).post("/orders", body, key="k"))["status"] == "allocated"
    await check_integrity(world)


async def test_an_unfinished_order_is_seen_by_nobody(world: World):
    await open_shop(world)
    allocation = await begin(world, order_of(("A-1", "4")))
    api = seller(world)
    assert (await api.get("/orders"))["items"] == []
    await api.get(f"/orders/{allocation.order_id}", expect=404)
    for verb in ("ship", "cancel", "allocate"):
        await api.post(f"/orders/{allocation.order_id}/{verb}", expect=404)


async def test_an_expired_hold_is_held_anew(world: World):
    await open_shop(world)
    await take_hold(orders_context(world), await begin(world, order_of(("A-1", "4"))))
    await execute(world, "inventory", "UPDATE reservations SET expires_at = now() - interval '1 second'")
    await recover(world)
    assert await fetch(world, "SELECT step, attempt FROM allocations") == [("done", 2)]
    api = seller(world)
    assert sorted(r["status"] for r in (await api.get("/reservations"))["items"]) == ["confirmed", "expired"]
    assert await stock_of(api) == ("10", "4", "6")
    await check_integrity(world)


async def test_an_expired_hold_whose_stock_is_gone_leaves_no_order(world: World):
    api = await open_shop(world)
    await take_hold(orders_context(world), await begin(world, order_of(("A-1", "4"))))
    await execute(world, "inventory", "UPDATE reservations SET expires_at = now() - interval '1 second'")
    other = await place(api, ("A-1", "8"))
    await recover(world)
    assert await fetch(world, "SELECT id FROM orders") == [(UUID(other["id"]),)]
    assert await stock_of(api) == ("10", "8", "2")
    await check_integrity(world)


async def test_a_hold_refused_in_the_background_leaves_no_order(world: World):
    api = await open_shop(world)
    await begin(world, order_of(("A-1", "4")))
    await place(api, ("A-1", "8"))
    await recover(world)
    assert len(await fetch(world, "SELECT id FROM orders")) == 1
    refused = await seller(world).post("/orders", order_of(("A-1", "4")), key="k", expect=409)
    assert refused["code"] == "insufficient_stock"


async def test_a_hold_that_comes_after_its_order_was_removed_is_released(world: World):
    api = await open_shop(world)
    context = orders_context(world)
    allocation = await begin(world, order_of(("A-1", "4")))
    other = await place(api, ("A-1", "8"))
    await recover(world)
    await api.post(f"/orders/{other['id']}/cancel", expect=200)
    # A driver that slept since before the removal wakes up, and now there is stock.
    assert (await allocation_saga.take_step(context, allocation)).state is None
    assert await stock_of(api) == ("10", "0", "10")
    await check_integrity(world)


async def test_drivers_of_one_order_do_each_step_once(world: World):
    await open_shop(world)
    allocation = await begin(world, order_of(("A-1", "4")))
    async with restarted(world) as other:
        contexts = [orders_context(world), orders_context(other)] * 4
        for _ in range(2):
            await asyncio.gather(*(allocation_saga.advance(context, allocation.id) for context in contexts))
    assert await fetch(world, "SELECT step, attempt FROM allocations") == [("done", 1)]
    kinds = await fetch(world, "SELECT type FROM outbox ORDER BY position")
    assert kinds == [("order.placed",), ("order.allocated",)]
    assert await stock_of(seller(world)) == ("10", "4", "6")
    await check_integrity(world)


async def test_two_background_drivers_share_the_open_orders(world: World):
    await open_shop(world, "100")
    for number in range(12):
        await begin(world, order_of(("A-1", "4")), key=f"k{number}")
    await make_due(world)
    async with restarted(world) as other:
        taken = await asyncio.gather(*(finish_open_sagas(orders_context(w)) for w in (world, other)))
    # The two processes' own rounds, one a second, may have taken some as well.
    assert sum(taken) <= 12
    await make_due(world)
    await finish_open_sagas(orders_context(world))
    assert await fetch(world, "SELECT step, count(*) FROM allocations GROUP BY step") == [("done", 12)]
    assert await stock_of(seller(world)) == ("100", "48", "52")
    await check_integrity(world)


async def test_an_interrupted_allocation_of_back_orders_is_finished(world: World):
    api = await open_shop(world, "3")
    order = await place(api, ("A-1", "10"), allocate="partial")
    await receive(api, "A-1", "4")
    context = orders_context(world)
    begun = await context.database.run(begin_allocation, actor=SELLER, order_id=UUID(order["id"]))
    assert begun is not None
    await allocation_saga.advance(context, begun.id)
    await recover(world)
    assert amounts(await api.get(f"/orders/{order['id']}")) == {"allocated": "7", "backordered": "3"}
    await check_integrity(world)


@pytest.mark.parametrize("stop", OPEN_STOPS)
async def test_cancelling_while_back_orders_are_being_allocated_leaves_none(world: World, stop: Stop):
    api = await open_shop(world, "3")
    order = await place(api, ("A-1", "10"), allocate="partial")
    await receive(api, "A-1", "4")
    context = orders_context(world)
    begun = await context.database.run(begin_allocation, actor=SELLER, order_id=UUID(order["id"]))
    assert begun is not None
    await stop(context, begun)
    cancelled = await api.post(f"/orders/{order['id']}/cancel", expect=200)
    assert (cancelled["status"], amounts(cancelled)) == ("cancelled", {"cancelled": "10"})
    assert await stock_of(api) == ("7", "0", "7")
    assert await fetch(world, "SELECT step FROM allocations") == [("released",)]
    await check_integrity(world)


async def test_an_interrupted_cancellation_gives_the_stock_back(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    await orders_context(world).database.run(cancel_order, actor=SELLER, order_id=UUID(order["id"]))
    assert await stock_of(api) == ("10", "4", "6")
    await recover(world)
    assert await stock_of(api) == ("10", "0", "10")
    await check_integrity(world)


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("is_answered", [False, True])
async def test_an_interrupted_shipment_is_posted_once(world: World, steps: int, is_answered: bool):
    api = await open_shop(world, "3")
    order = await place(api, ("A-1", "5"), allocate="partial")
    await receive(api, "A-1", "4")
    await api.post(f"/orders/{order['id']}/allocate", expect=200)
    context = orders_context(world)
    key = RequestKey("k", fingerprint_of("POST", f"/api/v1/orders/{order['id']}/ship", b""))
    begun = await context.database.run(begin_shipment, actor=SELLER, key=key, order_id=UUID(order["id"]), lines=None)
    assert begun.state is not None
    # Between the first and the last step the goods are the shipment's: nobody else may have or cancel them.
    assert (await api.post(f"/orders/{order['id']}/cancel", expect=409))["code"] == "shipment_under_way"
    assert (await api.post(f"/orders/{order['id']}/ship", expect=409))["code"] == "nothing_allocated"
    for _ in range(steps):
        await shipment_saga.advance(context, begun.state.id)
    posting = await context.database.read(load_posting, shipment_id=begun.state.id)
    if is_answered and posting is not None:
        await consume_only(context, posting)
    await recover(world)
    assert await context.database.read(load_posting, shipment_id=begun.state.id) is None
    (shipment,) = (await api.get("/shipments"))["items"]
    assert [line["quantity"] for line in shipment["lines"]] == ["5"]
    assert await seller(world).post(f"/orders/{order['id']}/ship", key="k") == shipment
    assert await stock_of(api) == ("2", "0", "2")
    await check_integrity(world)


async def consume_only(context: Context, posting: Any) -> None:
    """The crash came after the goods were issued and before that was noted."""
    part = posting.parts[0]
    await calls.consume(
        context.clients["inventory-service"],
        key=f"{posting.id}-{part.allocation_id}",
        reservation_id=part.reservation_id,
        reference=posting.number,
        lines=part.lines,
        person="x",
    )


@pytest.mark.parametrize("is_answered", [False, True])
async def test_an_interrupted_return_is_posted_once(world: World, is_answered: bool):
    api = await open_shop(world)
    order = await place(api, ("A-1", "5"))
    await api.post(f"/orders/{order['id']}/ship")
    body = {"order_id": order["id"], "lines": [{"line": 1, "quantity": "2", "disposition": "restock"}]}
    context = orders_context(world)
    key = RequestKey("k", fingerprint_of("POST", "/api/v1/returns", _encode(body)))
    begun = await context.database.run(begin_return, actor=SELLER, key=key, new=NewReturn.model_validate(body))
    assert begun.state is not None
    if is_answered:
        await calls.receive_return(
            context.clients["inventory-service"],
            key=str(begun.state.id),
            reference=begun.state.number,
            lines=return_saga._movement_lines(begun.state),
            person="x",
        )
    await recover(world)
    assert await context.database.read(load_return, return_id=begun.state.id) is None
    (returned,) = (await api.get("/returns"))["items"]
    assert await seller(world).post("/returns", body, key="k") == returned
    assert await stock_of(api) == ("7", "0", "7")
    await check_integrity(world)


async def test_a_saga_that_does_not_end_is_a_violation(world: World):
    await open_shop(world)
    await begin(world, order_of(("A-1", "4")))
    await orders_context(world).background.stop()
    await execute(world, "order", "UPDATE allocations SET deadline = now() - interval '11 minutes'")
    finding = await find_violations(world, "I16")
    assert (finding["violations"], finding["examples"]) == (1, [f"allocation {await only_allocation(world)}"])


async def test_a_line_that_says_more_than_is_reserved_is_a_violation(world: World):
    api = await open_shop(world)
    await place(api, ("A-1", "4"))
    await execute(world, "order", "UPDATE allocation_lines SET quantity = 3")
    finding = await find_violations(world, "I8")
    assert finding["violations"] == 1


async def test_loading_a_removed_allocation_finds_nothing(world: World):
    database = orders_context(world).database
    assert await database.read(load_allocation, allocation_id=uuid7()) is None
    assert await allocation_saga.advance(orders_context(world), uuid7()) == allocation_saga.Progress()
