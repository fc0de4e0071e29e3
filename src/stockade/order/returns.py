"""Returns: shipped goods that came back, each quantity with what becomes of it, in this service's tables.

Quantities under way are marked on the order line (`being_returned`) before anybody is told, so that nothing comes back twice;
they become `returned` when the receipt is posted. `return_saga` takes the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, RetryTransaction, Row
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.kit.events import publish
from stockade.kit.idempotency import RequestKey, StoredAnswer, settle_key
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.kit.shapes import plain
from stockade.order.lines import lock_order, no_such_order, save_order, tell
from stockade.order.sagas import DEADLINE, GRACE, Begun, claim
from stockade.order.shapes import NewReturn, NewReturnLine, Order, Return, ReturnedLine

_LAST = UUID(int=2**128 - 1)


@dataclass(frozen=True)
class Returning:
    """A return whose receipt is not posted yet."""

    id: UUID
    number: str
    order_id: UUID
    warehouse: str
    returned_by: str
    lines: tuple[ReturnedLine, ...]


async def begin_return(connection: Connection, *, actor: Actor, key: RequestKey, new: NewReturn) -> Begun[Returning]:
    """Mark what comes back; or join what this key began.

    Raises NotFound, Conflict `over_returned` with what can still be returned, Invalid `unknown_line`.
    """
    return_id, is_new, answer = await claim(connection, key, actor=actor, resource_id=uuid7())
    if answer is not None:
        return Begun(is_new=False, answer=answer)
    if is_new:
        await _insert_return(connection, actor=actor, return_id=return_id, new=new)
    returning = await load_return(connection, return_id=return_id)
    if returning is None:
        raise RetryTransaction  # It ended since the key was read.
    return Begun(is_new=is_new, state=returning)


async def load_return(connection: Connection, *, return_id: UUID) -> Returning | None:
    """A return that is not posted yet."""
    row = await connection.fetchrow(
        """
        SELECT r.id, r.number, r.order_id, o.warehouse, r.returned_by
          FROM returns r JOIN orders o ON o.id = r.order_id WHERE r.id = $1 AND r.status = 'posting'
        """,
        return_id,
    )
    if row is None:
        return None
    lines = (await _read_lines(connection, [return_id])).get(return_id)
    # Without lines it was removed between the two statements.
    return None if lines is None else Returning(**row, lines=tuple(lines))


async def finish_return(
    connection: Connection, *, returning: Returning, movement_id: UUID
) -> tuple[Order, Return] | None:
    """The receipt is posted: the goods are returned; None when another driver said so."""
    if await lock_order(connection, order_id=returning.order_id) is None:
        return None
    row = await connection.fetchrow(
        """
        UPDATE returns SET status = 'posted', movement_id = $2, returned_at = now() WHERE id = $1 AND status = 'posting'
        RETURNING id, number, order_id, status, movement_id, reason, returned_at
        """,
        returning.id, movement_id,
    )  # fmt: skip
    if row is None:
        return None
    await connection.execute(
        """
        UPDATE order_lines l SET returned = l.returned + r.quantity, being_returned = l.being_returned - r.quantity
          FROM (SELECT line, sum(quantity) AS quantity FROM return_lines WHERE return_id = $1 GROUP BY line) r
         WHERE l.order_id = $2 AND l.line = r.line
        """,
        returning.id, returning.order_id,
    )  # fmt: skip
    answer = Return(**row, lines=list(returning.lines))
    order = await save_order(connection, order_id=returning.order_id)
    # Named by the word of the route, `return`, which is no name in Python.
    await publish(connection, tell("order.returned", order, **{"return": answer.model_dump(mode="json")}))
    await settle_key(connection, resource_id=returning.id, answer=StoredAnswer(201, answer.model_dump_json()))
    return order, answer


async def forget_return(connection: Connection, *, returning: Returning) -> None:
    """The receipt was refused: the return never was."""
    if await lock_order(connection, order_id=returning.order_id) is None:
        return
    await connection.execute(
        """
        UPDATE order_lines l SET being_returned = l.being_returned - r.quantity
          FROM (SELECT line, sum(quantity) AS quantity FROM return_lines WHERE return_id = $1 GROUP BY line) r
         WHERE l.order_id = $2 AND l.line = r.line
           AND EXISTS (SELECT FROM returns WHERE id = $1 AND status = 'posting')
        """,
        returning.id, returning.order_id,
    )  # fmt: skip
    await connection.execute("DELETE FROM returns WHERE id = $1 AND status = 'posting'", returning.id)
    await settle_key(connection, resource_id=returning.id, answer=None)


async def get_return(connection: Connection, *, return_id: UUID) -> Return:
    rows = await connection.fetch(
        """
        SELECT id, number, order_id, status, movement_id, reason, returned_at FROM returns
         WHERE id = $1 AND status = 'posted'
        """,
        return_id,
    )
    if not rows:
        raise NotFound("There is no such return.", code="return_not_found")
    return (await _complete(connection, rows))[0]


async def list_returns(
    connection: Connection, *, limit: int, cursor: str | None, order_id: UUID | None
) -> Page[Return]:
    """Posted returns, the newest first."""
    (before,) = decode_cursor(cursor, UUID) or (_LAST,)
    rows = await connection.fetch(
        """
        SELECT id, number, order_id, status, movement_id, reason, returned_at FROM returns
         WHERE id < $1 AND status = 'posted' AND ($2::uuid IS NULL OR order_id = $2) ORDER BY id DESC LIMIT $3
        """,
        before, order_id, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    return Page(items=await _complete(connection, page), next=following)


async def _insert_return(connection: Connection, *, actor: Actor, return_id: UUID, new: NewReturn) -> None:
    if await lock_order(connection, order_id=new.order_id) is None:
        raise no_such_order()
    rows = await connection.fetch(
        "SELECT line, shipped - returned - being_returned AS returnable FROM order_lines WHERE order_id = $1",
        new.order_id,
    )
    _check_lines(new.lines, {row["line"]: row["returnable"] for row in rows})
    await connection.execute(
        """
        WITH begun AS (
            INSERT INTO returns (id, order_id, reason, returned_by, next_attempt_at, deadline)
            VALUES ($1, $2, $3, $4, now() + $5::text::interval, now() + $6::text::interval)
        ), lines AS (
            INSERT INTO return_lines (return_id, place, line, quantity, disposition, lot)
            SELECT $1, place, line, quantity, disposition, lot
              FROM unnest($7::smallint[], $8::numeric[], $9::text[], $10::text[])
                   WITH ORDINALITY AS r (line, quantity, disposition, lot, place)
        )
        UPDATE order_lines l SET being_returned = l.being_returned + r.quantity
          FROM (SELECT line, sum(quantity) AS quantity
                  FROM unnest($7::smallint[], $8::numeric[]) AS r (line, quantity) GROUP BY line) r
         WHERE l.order_id = $2 AND l.line = r.line
        """,
        return_id, new.order_id, new.reason, actor.responsible, GRACE, DEADLINE,
        [line.line for line in new.lines], [line.quantity for line in new.lines],
        [line.disposition for line in new.lines], [line.lot for line in new.lines],
    )  # fmt: skip


def _check_lines(lines: Sequence[NewReturnLine], returnable: dict[int, Decimal]) -> None:
    asked: dict[int, Decimal] = {}
    for place, line in enumerate(lines):
        if line.line not in returnable:
            raise Invalid.field(f"/lines/{place}/line", "unknown_line", f"The order has no line {line.line}.")
        asked[line.line] = asked.get(line.line, Decimal(0)) + line.quantity
    over: list[dict[str, Any]] = [
        {"line": line, "requested": plain(quantity), "returnable": plain(returnable[line])}
        for line, quantity in asked.items()
        if quantity > returnable[line]
    ]
    if over:
        raise Conflict("More is to be returned than was shipped.", code="over_returned", lines=over)


async def _complete(connection: Connection, rows: Sequence[Row]) -> list[Return]:
    lines = await _read_lines(connection, [row["id"] for row in rows])
    return [Return(**row, lines=lines[row["id"]]) for row in rows]


async def _read_lines(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[ReturnedLine]]:
    found: dict[UUID, list[ReturnedLine]] = {}
    for row in await connection.fetch(
        """
        SELECT r.return_id, r.line, l.sku, r.quantity, r.disposition, r.lot
          FROM return_lines r
          JOIN returns h ON h.id = r.return_id
          JOIN order_lines l ON l.order_id = h.order_id AND l.line = r.line
         WHERE r.return_id = ANY ($1::uuid[]) ORDER BY r.return_id, r.place
        """,
        ids,
    ):
        return_id, *line = row
        found.setdefault(return_id, []).append(
            ReturnedLine(**dict(zip(("line", "sku", "quantity", "disposition", "lot"), line, strict=True)))
        )
    return found
