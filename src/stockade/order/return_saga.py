"""The saga that posts a return: one receipt of everything that came back, then it is posted.

Like a shipment it is never given up, because a receipt that was sent may have been carried out.
"""

from typing import Any
from uuid import UUID

from fastapi import Response

from stockade.kit.auth import Actor
from stockade.kit.context import Context
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.kit.idempotency import RequestKey, StoredAnswer
from stockade.kit.shapes import plain
from stockade.order.calls import receive_return
from stockade.order.metrics import ORDERS
from stockade.order.returns import Returning, begin_return, finish_return, forget_return, load_return
from stockade.order.sagas import Begun, Progress, answer_saga
from stockade.order.shapes import NewReturn

_STATUS_OF = {"restock": "sellable", "quality_hold": "quality_hold", "damaged": "damaged"}


async def take_back(context: Context, *, actor: Actor, key: RequestKey, new: NewReturn) -> Response:
    """Take shipped goods back; 201 with the return, the same for every repetition of the key."""

    async def begin() -> Begun[Returning]:
        return await context.database.run(begin_return, actor=actor, key=key, new=new)

    return await answer_saga(context, key, actor=actor, begin=begin, take_step=take_step)


async def advance(context: Context, return_id: UUID) -> Progress[Returning]:
    """Take exactly one step of a return; nothing to do is an end, too."""
    returning = await context.database.read(load_return, return_id=return_id)
    return Progress() if returning is None else await take_step(context, returning)


async def take_step(context: Context, returning: Returning) -> Progress[Returning]:
    """Post the receipt."""
    try:
        movement_id = await receive_return(
            context.clients["inventory-service"],
            key=str(returning.id),
            reference=returning.number,
            lines=_movement_lines(returning),
            person=returning.returned_by,
        )
    except (Conflict, Invalid, NotFound) as refusal:
        await context.database.run(forget_return, returning=returning)
        return Progress(refusal=refusal)
    posted = await context.database.run(finish_return, returning=returning, movement_id=movement_id)
    if posted is None:
        return Progress()
    order, answer = posted
    ORDERS.labels(order.status).inc()
    return Progress(answer=StoredAnswer(201, answer.model_dump_json()))


def _movement_lines(returning: Returning) -> list[dict[str, Any]]:
    return [
        {
            "sku": line.sku,
            "warehouse": returning.warehouse,
            "status": _STATUS_OF[line.disposition],
            "quantity": plain(line.quantity),
        }
        | ({"lot": line.lot} if line.lot else {})
        for line in returning.lines
    ]
