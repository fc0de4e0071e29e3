"""The saga that gets a reservation for an order, or gives it back.

    hold → confirm → done                   the stock is the order's; an order that waited for it is accepted
    confirm → hold                          the hold had expired: held anew, as another attempt
    hold, confirm → undo → (removed)        given up, or cancelled meanwhile: what was held is given back
    done → release → released               the order was cancelled

A refused hold removes the same at once, or leaves a back order when a part would have done. A hold ends by itself after
15 minutes, so stock that nobody remembers cannot stay reserved. Undo without a known reservation sends the hold once
more: its answer, the first or a repeated one, is what has to be released.
"""

from dataclasses import replace
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.calls import ServiceClient
from stockade.kit.context import Context
from stockade.kit.errors import Conflict, Invalid, NotFound, Refusal
from stockade.kit.idempotency import StoredAnswer
from stockade.order import calls
from stockade.order.allocations import (
    Allocation,
    AllocationStep,
    ask_again,
    begin_allocation,
    finish_allocation,
    finish_without_stock,
    forget_allocation,
    load_allocation,
    move_allocation,
    note_hold,
)
from stockade.order.metrics import ORDERS
from stockade.order.sagas import Progress, drive
from stockade.order.shapes import Order


async def allocate(context: Context, *, actor: Actor, order_id: UUID) -> None:
    """Try to allocate what is back-ordered, as far as stock goes. Raises NotFound, or Conflict when it was cancelled meanwhile."""
    allocation = await context.database.run(begin_allocation, actor=actor, order_id=order_id)
    if allocation is not None:
        await drive(context, allocation, take_step)


async def advance(context: Context, allocation_id: UUID) -> Progress[Allocation]:
    """Take exactly one step of an allocation, wherever it is; nothing to do is an end, too."""
    allocation = await context.database.read(load_allocation, allocation_id=allocation_id)
    return Progress() if allocation is None else await take_step(context, allocation)


async def take_step(context: Context, allocation: Allocation) -> Progress[Allocation]:
    """The step that an allocation is at."""
    match allocation.step:
        case "hold" | "confirm" if allocation.is_late:
            return await _move_on(context, allocation, step="undo")
        case "hold":
            return await _hold(context, allocation)
        case "confirm":
            return await _confirm(context, allocation)
        case "undo":
            return await _undo(context, allocation)
        case "release":
            return await _release(context, allocation)
        case "done" | "released":
            return Progress()


async def _hold(context: Context, allocation: Allocation) -> Progress[Allocation]:
    try:
        reservation = await _call_hold(context, allocation)
    except (Conflict, Invalid, NotFound) as refusal:
        return await _end_refused(context, allocation, refusal)
    if await context.database.run(note_hold, allocation=allocation, reservation=reservation):
        step: AllocationStep = "confirm" if allocation.step == "hold" else allocation.step
        return Progress(replace(allocation, step=step, reservation_id=reservation.id))
    if await context.database.read(load_allocation, allocation_id=allocation.id) is None:
        # Another driver was refused and removed it; without this the hold would bind stock until it expires.
        await calls.release(_inventory(context), reservation_id=reservation.id, person=allocation.asked_by)
    return await _look_again(context, allocation)


async def _confirm(context: Context, allocation: Allocation) -> Progress[Allocation]:
    reservation_id = _known_reservation(allocation)
    try:
        await calls.confirm(_inventory(context), reservation_id=reservation_id, person=allocation.asked_by)
    except (Conflict, NotFound):
        # It expired, or somebody released it by hand: the stock has to be asked for anew, with a key of its own.
        if await context.database.run(ask_again, allocation=allocation):
            return Progress(replace(allocation, step="hold", attempt=allocation.attempt + 1, reservation_id=None))
        return await _look_again(context, allocation)
    order = await context.database.run(finish_allocation, allocation=allocation)
    return await _look_again(context, allocation) if order is None else _end_done(allocation, order)


async def _end_refused(context: Context, allocation: Allocation, refusal: Refusal) -> Progress[Allocation]:
    """The end of a hold that was refused."""
    if allocation.mode == "partial" and refusal.code == "insufficient_stock" and allocation.step == "hold":
        order = await context.database.run(finish_without_stock, allocation=allocation)
        return await _look_again(context, allocation) if order is None else _end_done(allocation, order)
    if await context.database.run(forget_allocation, allocation=allocation):
        if allocation.is_first:
            ORDERS.labels("refused").inc()
    elif await context.database.read(load_allocation, allocation_id=allocation.id) is not None:
        return await _look_again(context, allocation)
    return Progress(refusal=_point_at_the_order(refusal))


async def _undo(context: Context, allocation: Allocation) -> Progress[Allocation]:
    if allocation.reservation_id is None:
        return await _hold(context, allocation)
    await calls.release(_inventory(context), reservation_id=allocation.reservation_id, person=allocation.asked_by)
    await context.database.run(forget_allocation, allocation=allocation)
    said = "Its time was over, or the order was cancelled, before stock could be allocated."
    return Progress(refusal=Conflict(said, code="allocation_given_up"))


async def _release(context: Context, allocation: Allocation) -> Progress[Allocation]:
    reservation_id = _known_reservation(allocation)
    await calls.release(_inventory(context), reservation_id=reservation_id, person=allocation.asked_by)
    await _move_on(context, allocation, step="released")
    return Progress()


async def _move_on(context: Context, allocation: Allocation, *, step: AllocationStep) -> Progress[Allocation]:
    if await context.database.run(move_allocation, allocation=allocation, step=step):
        return Progress(replace(allocation, step=step))
    return await _look_again(context, allocation)


async def _look_again(context: Context, allocation: Allocation) -> Progress[Allocation]:
    """Where another driver has brought the saga."""
    current = await context.database.read(load_allocation, allocation_id=allocation.id)
    return Progress() if current is None or current.step in ("done", "released") else Progress(current)


def _end_done(allocation: Allocation, order: Order) -> Progress[Allocation]:
    ORDERS.labels(order.status).inc()
    return Progress(answer=StoredAnswer(201 if allocation.is_first else 200, order.model_dump_json()))


async def _call_hold(context: Context, allocation: Allocation) -> calls.Reservation:
    return await calls.hold(
        _inventory(context),
        key=f"{allocation.id}-{allocation.attempt}",
        reference=allocation.number,
        mode=allocation.mode,
        warehouse=allocation.warehouse,
        lines=[(line.sku, line.asked) for line in allocation.lines],
        person=allocation.asked_by,
    )


def _point_at_the_order(refusal: Refusal) -> Refusal:
    """An order names its warehouse once, where a reservation names it in every line."""
    if refusal.code != "unknown_warehouse":
        return refusal
    return Invalid.field("/warehouse", refusal.code, refusal.detail)


def _known_reservation(allocation: Allocation) -> UUID:
    assert allocation.reservation_id is not None, "the table's check allows this step only with a reservation"
    return allocation.reservation_id


def _inventory(context: Context) -> ServiceClient:
    return context.clients["inventory-service"]
