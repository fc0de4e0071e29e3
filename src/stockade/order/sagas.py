"""What every saga of this package has in common: one step after the other, from a request or from the background.

A step is one call to another service or none, and then one transaction that checks that the saga is still where the step
found it. So a step may be taken by several drivers at once or again after a crash: the call carries a key that depends
only on the saga and its attempt, and only one of the transactions finds its condition.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from fastapi import Response

from stockade.kit.auth import Actor
from stockade.kit.context import Context
from stockade.kit.database import Connection
from stockade.kit.errors import Refusal, Unavailable
from stockade.kit.idempotency import RequestKey, StoredAnswer, claim_key, find_answer, respond

DEADLINE = "30 minutes"
"""How long a hold or a confirmation is tried before it is given up, and what I16 measures all sagas by."""
GRACE = "5 seconds"
"""How long the background driver leaves a saga to the request that began it."""

_STEPS_MAX = 300
"""More than any shipment has reservations; a saga that takes more goes on in the background."""
_BEGINNINGS_MAX = 3

S = TypeVar("S")


@dataclass(frozen=True)
class Progress(Generic[S]):
    """What a step led to: what is still to do, or at the end (no state) the answer or the refusal.

    At an end that another driver reached there is neither.
    """

    state: S | None = None
    answer: StoredAnswer | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Begun(Generic[S]):
    """A saga that this request began or joins, or the answer that is known already."""

    is_new: bool
    state: S | None = None
    answer: StoredAnswer | None = None


Step = Callable[[Context, S], Awaitable[Progress[S]]]


async def claim(
    connection: Connection, key: RequestKey, *, actor: Actor, resource_id: UUID
) -> tuple[UUID, bool, StoredAnswer | None]:
    """What this key makes, whether it begins now, and its answer if it is made already."""
    claimed = await claim_key(connection, key, actor=actor, resource_id=resource_id)
    answer = None if claimed.is_new else await find_answer(connection, key, actor=actor)
    return claimed.resource_id, claimed.is_new, answer


async def drive(context: Context, state: S, take_step: Step[S]) -> StoredAnswer | None:
    """Take steps to the end; raises its refusal, or Unavailable when the background driver must go on."""
    for _ in range(_STEPS_MAX):
        progress = await take_step(context, state)
        if progress.refusal is not None:
            raise progress.refusal
        if progress.state is None:
            return progress.answer
        state = progress.state
    raise Unavailable("This takes longer than a request may; ask again with the same Idempotency-Key.")


async def answer_saga(
    context: Context,
    key: RequestKey,
    *,
    actor: Actor,
    begin: Callable[[], Awaitable[Begun[S]]],
    take_step: Step[S],
) -> Response:
    """Begin or join the saga of this key, drive it to its end and answer.

    When another request with the same key was refused while this one was under way, the key is free again and this
    request begins anew, so that each gets an answer of its own.
    """
    for _ in range(_BEGINNINGS_MAX):
        begun = await begin()
        answer = begun.answer
        if answer is None and begun.state is not None:
            answer = await drive(context, begun.state, take_step)
        if answer is None:
            answer = await context.database.read(find_answer, key, actor=actor)
        if answer is not None:
            return respond(answer, replayed=not begun.is_new)
    raise Unavailable("Other requests with this Idempotency-Key were refused meanwhile; try again.")
