"""Receiving goods, across two services: begin the receipt here, post the movement there, settle or withdraw here.

Each step may be the last one of a process. Whatever it leaves is found by `finish_receipts`, in any process of this
service, once the lease of the attempt is over; the movement's key makes its repeats harmless.
"""

import asyncio
import time
from uuid import UUID

from fastapi import Response
from prometheus_client import Counter

from stockade.kit.auth import Actor
from stockade.kit.calls import deadline
from stockade.kit.context import Context
from stockade.kit.errors import Refusal, Unavailable
from stockade.kit.idempotency import RequestKey, StoredAnswer, respond
from stockade.kit.logs import get_logger
from stockade.supplier.calls import is_final, post_movement, word_for_receiver
from stockade.supplier.receipts import (
    begin_receipt,
    claim_attempt,
    claim_due_receipt,
    find_receipt,
    postpone_receipt,
    settle_receipt,
    withdraw_receipt,
)
from stockade.supplier.shapes import NewReceipt

RECEIPTS = Counter("stockade_receipts_total", "Attempts to post a goods receipt, by outcome.", ("outcome",))

_ROUNDS_MAX = 3
_FINISH_BATCH_MAX = 20
_TWIN_POLL_S = 0.1
_TWIN_WAIT_MAX_S = 10.0


async def receive(context: Context, *, actor: Actor, key: RequestKey, order_id: UUID, new: NewReceipt) -> Response:
    """The goods receipt of a request, posted. Raises the refusal of either service, or Unavailable `receipt_pending`."""
    for _ in range(_ROUNDS_MAX):
        begun = await context.database.run(begin_receipt, actor=actor, key=key, order_id=order_id, new=new)
        if isinstance(begun, StoredAnswer):
            return respond(begun, replayed=True)
        if begun.is_mine:
            answer = await attempt(context, begun.receipt_id)
        else:
            answer = await _join_twin(context, begun.receipt_id)
        if answer is not None:
            return respond(answer, replayed=not begun.is_mine)
        # The twin was refused and its receipt is gone; beginning anew finds out what it was told.
    raise _pending()


async def attempt(context: Context, receipt_id: UUID) -> StoredAnswer | None:
    """Bring a receipt, whose attempt the caller holds, to its end. None if it was withdrawn meanwhile.

    Raises the refusal of the inventory-service after withdrawing the receipt, or Unavailable after postponing it.
    """
    try:
        movement_id = await take_into_stock(context, receipt_id)
    except Refusal as refusal:
        await give_up(context, receipt_id, refusal)
        raise word_for_receiver(refusal) if is_final(refusal) else _pending() from refusal
    if movement_id is None:
        return None
    answer = await context.database.run(settle_receipt, receipt_id=receipt_id, movement_id=movement_id)
    # Only a process that slept through its own lease can find that somebody withdrew what it was posting.
    assert answer is not None, f"movement {movement_id} is in stock, but receipt {receipt_id} was withdrawn"
    RECEIPTS.labels("posted").inc()
    return answer


async def take_into_stock(context: Context, receipt_id: UUID) -> UUID | None:
    """The middle step: the movement of a receipt that was begun; None if there is no such receipt any more."""
    receipt = await context.database.read(find_receipt, receipt_id=receipt_id)
    if receipt is None or receipt.movement_id is not None:
        return receipt and receipt.movement_id
    return await post_movement(context.clients["inventory-service"], receipt)


async def give_up(context: Context, receipt_id: UUID, refusal: Refusal) -> None:
    """The last step when the movement was not made: withdraw if that is certain, else leave it for later."""
    if is_final(refusal):
        await context.database.run(withdraw_receipt, receipt_id=receipt_id)
        RECEIPTS.labels("refused").inc()
    else:
        await context.database.run(postpone_receipt, receipt_id=receipt_id)
        RECEIPTS.labels("postponed").inc()


async def finish_receipts(context: Context) -> None:
    """One round in the background: bring the receipts to their end that a crash or a lost answer left under way."""
    log = get_logger(context.service.name)
    for _ in range(_FINISH_BATCH_MAX):
        receipt_id = await context.database.run(claim_due_receipt)
        if receipt_id is None:
            return
        try:
            await attempt(context, receipt_id)
        except Refusal as refusal:
            log.warning("goods receipt not posted", **{"event.action": "finish receipts", "error.code": refusal.code})


async def _join_twin(context: Context, receipt_id: UUID) -> StoredAnswer | None:
    """Wait for the request with the same key that came first, and go on with its receipt where it stopped."""
    until = min(time.monotonic() + _TWIN_WAIT_MAX_S, deadline.get() - 1)
    while time.monotonic() < until:
        receipt = await context.database.read(find_receipt, receipt_id=receipt_id)
        if receipt is None:
            return None
        if receipt.status == "posted":
            return StoredAnswer(201, receipt.model_dump_json())
        if await context.database.run(claim_attempt, receipt_id=receipt_id):
            return await attempt(context, receipt_id)
        await asyncio.sleep(_TWIN_POLL_S)
    raise _pending()


def _pending() -> Unavailable:
    return Unavailable(
        "The goods receipt is written but not in stock yet; it will be. Ask again with the same Idempotency-Key.",
        code="receipt_pending",
        retry_after_s=2,
    )
