"""The saga that posts a shipment: one consumption for every reservation that it takes from, then it is posted.

It is never given up: a consumption that was sent may have been carried out, and the same key finds out. A reservation
that does not hold what this service believed (somebody released it by hand) gives its part back.
"""

from uuid import UUID

from fastapi import Response

from stockade.kit.auth import Actor
from stockade.kit.context import Context
from stockade.kit.errors import Conflict, Invalid, NotFound, Refusal
from stockade.kit.idempotency import RequestKey, StoredAnswer
from stockade.order.calls import consume
from stockade.order.metrics import ORDERS
from stockade.order.sagas import Begun, Progress, answer_saga
from stockade.order.shapes import NewShipment, Order, Shipment
from stockade.order.shipments import Part, Posting, begin_shipment, give_part_back, load_posting, note_movement

_LOST = ("not_confirmed", "reservation_released", "reservation_expired", "reservation_not_found")
"""What the inventory-service says of a reservation that has ended, though this service has not ended it."""


async def ship(
    context: Context, *, actor: Actor, key: RequestKey, order_id: UUID, shipment: NewShipment | None
) -> Response:
    """Ship what is named, or everything allocated; 201 with the shipment, the same for every repetition of the key."""
    lines = None if shipment is None else shipment.lines

    async def begin() -> Begun[Posting]:
        return await context.database.run(begin_shipment, actor=actor, key=key, order_id=order_id, lines=lines)

    return await answer_saga(context, key, actor=actor, begin=begin, take_step=take_step)


async def advance(context: Context, shipment_id: UUID) -> Progress[Posting]:
    """Take exactly one step of a shipment; nothing to do is an end, too."""
    posting = await context.database.read(load_posting, shipment_id=shipment_id)
    return Progress() if posting is None else await take_step(context, posting)


async def take_step(context: Context, posting: Posting) -> Progress[Posting]:
    """Consume one part."""
    if not posting.parts:
        return Progress()  # It was read while another driver posted its last part.
    part = posting.parts[0]
    try:
        movement_id = await consume(
            context.clients["inventory-service"],
            key=f"{posting.id}-{part.allocation_id}",
            reservation_id=part.reservation_id,
            reference=posting.number,
            lines=part.lines,
            person=posting.shipped_by,
        )
    except (Conflict, Invalid, NotFound) as refusal:
        return await _give_back(context, posting, part, refusal)
    posted = await context.database.run(note_movement, posting=posting, part=part, movement_id=movement_id)
    return await _look_again(context, posting) if posted is None else _end(*posted)


async def _give_back(context: Context, posting: Posting, part: Part, refusal: Refusal) -> Progress[Posting]:
    is_lost = refusal.code in _LOST
    posted = await context.database.run(give_part_back, posting=posting, part=part, is_lost=is_lost)
    if posted is not None:
        return _end(*posted)
    progress = await _look_again(context, posting)
    return progress if progress.state is not None else Progress(refusal=refusal)


async def _look_again(context: Context, posting: Posting) -> Progress[Posting]:
    return Progress(await context.database.read(load_posting, shipment_id=posting.id))


def _end(order: Order, shipment: Shipment) -> Progress[Posting]:
    ORDERS.labels(order.status).inc()
    return Progress(answer=StoredAnswer(201, shipment.model_dump_json()))
