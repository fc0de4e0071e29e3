"""Idempotency-Key: a request that is sent twice has one effect and gets the first answer.

The answer is kept in the transaction of the effect, so either both exist or neither. A refusal keeps nothing: it had no
effect, and the same key may be used again once the reason is gone. The same key with another body is refused (422).
Keys belong to the actor who used them and are kept for seven days.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, Database, RetryTransaction
from stockade.kit.errors import Conflict, Invalid

_KEEP = "7 days"
_FORGET_BATCH = 10_000


@dataclass(frozen=True)
class RequestKey:
    """The caller's key, and the fingerprint of what was asked."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True)
class StoredAnswer:
    status: int
    body: str


@dataclass(frozen=True)
class Claim:
    """An unfinished request of several steps: what it is making, and whether this caller began it."""

    resource_id: UUID
    is_new: bool


_HEADER: Any = Header(
    alias="Idempotency-Key", min_length=1, max_length=128, pattern=r"^[\x21-\x7e]+$",
    description="Chosen by the caller; repeats are safe.",
)  # fmt: skip


async def _read_optional_key(
    request: Request, idempotency_key: Annotated[str | None, _HEADER] = None
) -> RequestKey | None:
    return None if idempotency_key is None else await _read_key(request, idempotency_key)


async def _read_key(request: Request, idempotency_key: Annotated[str, _HEADER]) -> RequestKey:
    return RequestKey(idempotency_key, await _fingerprint(request))


OptionalKey = Annotated[RequestKey | None, Depends(_read_optional_key)]
MandatoryKey = Annotated[RequestKey, Depends(_read_key)]


async def answer_once(
    database: Database,
    key: RequestKey | None,
    verb: Callable[..., Awaitable[BaseModel]],
    *,
    actor: Actor,
    status: int = 201,
    **arguments: Any,
) -> Response:
    """Run a verb (with `actor` and the arguments) once for this key and answer with what it returned, now and on every replay."""

    @functools.wraps(verb)
    async def once(connection: Connection) -> tuple[StoredAnswer, bool]:
        if key is not None and (found := await find_answer(connection, key, actor=actor)):
            return found, True
        result: BaseModel = await verb(connection, actor=actor, **arguments)
        answer = StoredAnswer(status, result.model_dump_json())
        if key is not None:
            await _keep_answer(connection, key, answer, actor=actor)
        return answer, False

    try:
        answer, replayed = await database.run(once)
    except Conflict:
        # What this one wanted may be what a twin has just got; then the twin's answer is the answer of both.
        found = None if key is None else await database.read(find_answer, key, actor=actor)
        if found is None:
            raise
        answer, replayed = found, True
    return respond(answer, replayed=replayed)


def respond(answer: StoredAnswer, *, replayed: bool) -> Response:
    """The HTTP form of an answer; a replay says so in `Idempotent-Replay`."""
    headers = {"Idempotent-Replay": "true"} if replayed else None
    return Response(answer.body, status_code=answer.status, media_type="application/json", headers=headers)


async def find_answer(connection: Connection, key: RequestKey, *, actor: Actor) -> StoredAnswer | None:
    """The answer that this key got before. Refuses a key that was used for something else."""
    row = await connection.fetchrow(
        "SELECT fingerprint, status, body FROM idempotency_keys WHERE actor = $1 AND key = $2 AND status IS NOT NULL",
        actor.key_owner,
        key.key,
    )
    if row is None:
        return None
    check_fingerprint(key, row["fingerprint"])
    return StoredAnswer(row["status"], row["body"])


async def claim_key(connection: Connection, key: RequestKey, *, actor: Actor, resource_id: UUID) -> Claim:
    """Begin a request of several steps under this key, or find what an earlier attempt is making."""
    is_new = await connection.fetchval(
        """
        INSERT INTO idempotency_keys (actor, key, fingerprint, resource_id) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING RETURNING true
        """,
        actor.key_owner, key.key, key.fingerprint, resource_id,
    )  # fmt: skip
    if is_new:
        return Claim(resource_id, True)
    row = await connection.fetchrow(
        "SELECT fingerprint, resource_id FROM idempotency_keys WHERE actor = $1 AND key = $2", actor.key_owner, key.key
    )
    if row is None:
        raise RetryTransaction
    check_fingerprint(key, row["fingerprint"])
    return Claim(row["resource_id"], False)


async def settle_key(connection: Connection, *, resource_id: UUID, answer: StoredAnswer | None) -> None:
    """Finish what `claim_key` began: keep the answer, or forget the key because the request was refused."""
    if answer is None:
        await connection.execute("DELETE FROM idempotency_keys WHERE resource_id = $1 AND status IS NULL", resource_id)
    else:
        await connection.execute(
            "UPDATE idempotency_keys SET status = $2, body = $3 WHERE resource_id = $1 AND status IS NULL",
            resource_id,
            answer.status,
            answer.body,
        )


def check_fingerprint(key: RequestKey, stored: bytes) -> None:
    if stored != key.fingerprint:
        raise Invalid.field(
            "header/Idempotency-Key",
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request; choose a new one.",
        )


async def forget_old_keys(connection: Connection) -> bool:
    """Delete a bounded batch of keys that are past their time; returns whether there may be more."""
    gone = await connection.fetchval(
        """
        WITH old AS (SELECT actor, key FROM idempotency_keys WHERE created_at < now() - $1::text::interval LIMIT $2),
             gone AS (DELETE FROM idempotency_keys k USING old WHERE k.actor = old.actor AND k.key = old.key RETURNING 1)
        SELECT count(*) FROM gone
        """,
        _KEEP, _FORGET_BATCH,
    )  # fmt: skip
    return gone == _FORGET_BATCH


async def _keep_answer(connection: Connection, key: RequestKey, answer: StoredAnswer, *, actor: Actor) -> None:
    kept = await connection.fetchval(
        """
        INSERT INTO idempotency_keys (actor, key, fingerprint, status, body) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING RETURNING true
        """,
        actor.key_owner, key.key, key.fingerprint, answer.status, answer.body,
    )  # fmt: skip
    if not kept:
        # A twin request committed first. Rolling back undoes this effect, and the next attempt finds the twin's answer.
        raise RetryTransaction


def fingerprint_of(method: str, path: str, body: bytes) -> bytes:
    """What identifies a request: the same JSON in another order of members is the same request."""
    # What is not JSON will be refused by validation; its raw bytes identify the request as well.
    with contextlib.suppress(ValueError, RecursionError):
        body = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).digest()


async def _fingerprint(request: Request) -> bytes:
    return fingerprint_of(request.method, request.url.path, await request.body())
