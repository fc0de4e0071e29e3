"""Events between services without a broker: an outbox, an ordered feed, and consumers that move with their effect.

A verb publishes in its own transaction, so an event exists exactly when its cause was committed. The feed gives events
in the order of their positions; since a verb takes its position while it holds the locks of the things it changed, that
is also the order of the changes of each thing. A consumer keeps its cursor in the transaction of the effect: at least
once on the wire, exactly once in its tables. Envelopes are CloudEvents 1.0.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query

from stockade.kit.auth import Actor, require
from stockade.kit.calls import ServiceClient
from stockade.kit.context import Ctx
from stockade.kit.database import Connection, Database, Row
from stockade.kit.ids import uuid7
from stockade.kit.metrics import OUTBOX_LAG

Apply = Callable[[Any, Sequence[Mapping[str, Any]]], Awaitable[None]]
"""What a consumer does with a batch of events (envelopes), in order, in the transaction of its cursor."""

BATCH_MAX = 500
_WAIT_MAX_S = 20.0
_POLL_S = 0.2
_SETTLE_STEPS_MAX = 200


@dataclass(frozen=True)
class Event:
    """Something that happened: type in the past tense, the thing that it happened to, and JSON data."""

    type: str
    subject: str
    data: Mapping[str, Any]


async def publish(connection: Connection, *events: Event) -> None:
    """Write events to the outbox, in order, in the caller's transaction and after its locks are taken."""
    await connection.execute(
        """
        INSERT INTO outbox (event_id, type, subject, data)
        SELECT event_id, type, subject, data::jsonb
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS e (event_id, type, subject, data, place)
         ORDER BY place
        """,
        [uuid7() for _ in events],
        [event.type for event in events],
        [event.subject for event in events],
        [json.dumps(event.data, default=str) for event in events],
    )


async def read_events(database: Database, *, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The events behind a position, and the newest position that is settled.

    A position is settled when every transaction that might still commit a lower one has ended: positions are taken by
    transactions that already have a number, so once all numbers below one that is drawn now are finished, everything up
    to the position read before is final. (The upper end of a snapshot would not do: it is the newest transaction that
    has ended, and one with a higher number may be open.)
    """
    newest = await database.read(_read_newest)
    if newest <= after:
        return [], after
    horizon = await database.read(_read_horizon)
    for _ in range(_SETTLE_STEPS_MAX):
        if await database.read(_has_settled, horizon=horizon):
            rows = await database.read(_read_rows, after=after, newest=newest, limit=limit)
            return [_envelope(row, database.service) for row in rows], newest
        await asyncio.sleep(0.005)
    return [], after


def feed_router() -> APIRouter:
    """`GET /internal/events`: the feed of this service for other services, with long poll."""
    router = APIRouter(include_in_schema=False)

    @router.get("/internal/events")
    async def get_events(
        context: Ctx,
        after: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=BATCH_MAX)] = BATCH_MAX,
        wait_s: Annotated[float, Query(ge=0, le=_WAIT_MAX_S)] = 0,
        _: Actor = require("events:read"),
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            events, newest = await read_events(context.database, after=after, limit=limit)
            if events or loop.time() >= until or context.lifecycle.draining:
                return {"events": events, "newest": newest}
            after = newest  # Nothing of ours will ever appear up to there, so it need not be settled again.
            await asyncio.sleep(_POLL_S)

    return router


class Consumer:
    """Applies the events of another service, in order, each batch in one transaction together with the cursor."""

    def __init__(self, database: Database, client: ServiceClient, apply: Apply) -> None:
        self.database = database
        self.client = client
        self.apply = apply

    async def follow(self) -> None:
        """One round: ask for what is new (waiting a while for it), apply it. Made for `Background.repeat`."""
        after = await self.database.run(_read_cursor, source=self.client.target)
        answer = await self.client.get("/internal/events", query={"after": after, "wait_s": 10}, timeout_s=15)
        events = answer["events"]
        last = events[-1]["position"] if events else answer["newest"]
        OUTBOX_LAG.labels(self.database.service, self.client.target).set(max(0, answer["newest"] - last))
        if last > after:
            await self.database.run(
                _apply_batch, source=self.client.target, after=after, last=last, events=events, apply=self.apply
            )


async def _read_newest(connection: Connection) -> int:
    return await connection.fetchval("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_position_seq")


async def _read_horizon(connection: Connection) -> int:
    return await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")


async def _has_settled(connection: Connection, *, horizon: int) -> bool:
    return await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= $1", horizon)


async def _read_rows(connection: Connection, *, after: int, newest: int, limit: int) -> list[Row]:
    return await connection.fetch(
        """
        SELECT position, event_id, type, subject, occurred_at, data
          FROM outbox WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3
        """,
        after, newest, limit,
    )  # fmt: skip


async def _read_cursor(connection: Connection, *, source: str) -> int:
    await connection.execute("INSERT INTO feed_cursors (source) VALUES ($1) ON CONFLICT DO NOTHING", source)
    return await connection.fetchval("SELECT position FROM feed_cursors WHERE source = $1", source)


async def _apply_batch(
    connection: Connection,
    *,
    source: str,
    after: int,
    last: int,
    events: list[dict[str, Any]],
    apply: Apply,
) -> None:
    position = await connection.fetchval("SELECT position FROM feed_cursors WHERE source = $1 FOR UPDATE", source)
    if position != after:
        return  # Another process of this service has applied the batch meanwhile.
    if events:  # Else there are only positions whose transactions were rolled back.
        await apply(connection, events)
    await connection.execute(
        "UPDATE feed_cursors SET position = $2, updated_at = now() WHERE source = $1", source, last
    )


def _envelope(row: Row, service: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(row["event_id"]),
        "source": f"/{service}",
        "type": row["type"],
        "subject": row["subject"],
        "time": row["occurred_at"].isoformat(),
        "datacontenttype": "application/json",
        "data": row["data"],
        "position": row["position"],
    }
