"""The background driver: takes up every saga that its request did not bring to an end.

Several processes may run it at once. A claim moves the time of the next attempt, so each open saga is one driver's for a
while; should two drive it all the same, the steps themselves are harmless.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, LiteralString
from uuid import UUID

from stockade.kit.context import Context
from stockade.kit.database import Connection
from stockade.kit.errors import Refusal
from stockade.kit.logs import get_logger
from stockade.order import allocation_saga, return_saga, shipment_saga
from stockade.order.sagas import Progress

_BATCH = 64
_AT_ONCE = 8
_STEPS_MAX = 20

_CLAIM_ALLOCATIONS = """
    UPDATE allocations SET tries = tries + 1, next_attempt_at = now() + least(60, 2 ^ least(tries, 6)) * interval '1 second'
     WHERE id = ANY (ARRAY(
               SELECT id FROM allocations
                WHERE step IN ('hold', 'confirm', 'undo', 'release') AND next_attempt_at <= now()
                ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING id
"""
_CLAIM_SHIPMENTS = """
    UPDATE shipments SET tries = tries + 1, next_attempt_at = now() + least(60, 2 ^ least(tries, 6)) * interval '1 second'
     WHERE id = ANY (ARRAY(
               SELECT id FROM shipments WHERE status = 'posting' AND next_attempt_at <= now()
                ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING id
"""
_CLAIM_RETURNS = """
    UPDATE returns SET tries = tries + 1, next_attempt_at = now() + least(60, 2 ^ least(tries, 6)) * interval '1 second'
     WHERE id = ANY (ARRAY(
               SELECT id FROM returns WHERE status = 'posting' AND next_attempt_at <= now()
                ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING id
"""

Advance = Callable[[Context, UUID], Awaitable[Progress[Any]]]


async def finish_open_sagas(context: Context) -> int:
    """One round: drive what is due, a bounded number of sagas; returns how many were taken up."""
    return (
        await _drive_due(context, _CLAIM_ALLOCATIONS, allocation_saga.advance)
        + await _drive_due(context, _CLAIM_SHIPMENTS, shipment_saga.advance)
        + await _drive_due(context, _CLAIM_RETURNS, return_saga.advance)
    )


async def finish_saga(context: Context, saga_id: UUID, advance: Advance) -> None:
    """Drive one saga until it ends, is refused, or the other service does not answer; then the next attempt goes on."""
    try:
        for _ in range(_STEPS_MAX):
            progress = await advance(context, saga_id)
            if progress.refusal is not None:
                raise progress.refusal
            if progress.state is None:
                return
    except Refusal as refusal:
        get_logger(context.service.name).info(
            "saga was refused or waits", **{"event.action": advance.__module__, "error.code": refusal.code}
        )


async def claim_due(connection: Connection, *, claim: LiteralString, limit: int) -> list[UUID]:
    """The open sagas whose time has come, which are this driver's until their next attempt."""
    return [row["id"] for row in await connection.fetch(claim, limit)]


async def _drive_due(context: Context, claim: LiteralString, advance: Advance) -> int:
    due = await context.database.run(claim_due, claim=claim, limit=_BATCH)
    for start in range(0, len(due), _AT_ONCE):
        await _drive_together(context, due[start : start + _AT_ONCE], advance)
    return len(due)


async def _drive_together(context: Context, ids: Sequence[UUID], advance: Advance) -> None:
    await asyncio.gather(*(finish_saga(context, saga_id, advance) for saga_id in ids))
