"""Goods receipts: what came of a purchase order. The transactions of their life; `receiving` drives it.

A receipt begins as `posting` and counts against its order at once. It ends `posted`, with the movement that took it into
stock, or is withdrawn without a trace. Between the two it belongs to one attempt at a time: `next_attempt_at` is the end
of that attempt's lease, so that nobody withdraws a receipt which somebody else is just posting.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, Row
from stockade.kit.errors import Conflict, FieldError, Invalid, NotFound
from stockade.kit.events import Event, publish
from stockade.kit.idempotency import RequestKey, StoredAnswer, claim_key, find_answer, settle_key
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.kit.shapes import plain
from stockade.supplier.purchase_orders import RECEIVABLE, lock_order, wrong_status
from stockade.supplier.shapes import NewReceipt, Receipt, ReceiptHeader, ReceiptLine

LEASE = "30 seconds"
"""Longer than an attempt can take, its call to the inventory-service included."""
DEADLINE = "15 minutes"
KEY_LIFETIME = "6 days"
"""The inventory-service remembers an Idempotency-Key for seven days; after that a repeat could post twice."""

_BACKOFF_MAX_S = 60
_ERRORS_MAX = 20
_NEWEST = UUID(int=2**128 - 1)


@dataclass(frozen=True)
class Begun:
    """A receipt that is under way, and whether this caller holds its attempt."""

    receipt_id: UUID
    is_mine: bool


async def begin_receipt(
    connection: Connection, *, actor: Actor, key: RequestKey, order_id: UUID, new: NewReceipt
) -> Begun | StoredAnswer:
    """Count goods as arriving and write their receipt, as `posting`. The answer of an earlier request with this key, if any.

    Raises NotFound, Conflict `wrong_status`, Conflict `over_receipt` with what is still allowed, Invalid `unknown_line`.
    """
    if found := await find_answer(connection, key, actor=actor):
        return found
    claim = await claim_key(connection, key, actor=actor, resource_id=uuid7())
    if not claim.is_new:
        return Begun(claim.resource_id, False)
    status = await lock_order(connection, order_id)
    if status not in RECEIVABLE:
        raise wrong_status(status, "only a sent one receives goods")
    await _check_lines(connection, order_id, new)
    await _insert_receipt(connection, claim.resource_id, order_id, new, actor)
    await connection.execute(
        """
        UPDATE purchase_order_lines l SET receiving = l.receiving + came.quantity
          FROM (SELECT purchase_order_line_id, sum(quantity) AS quantity
                  FROM receipt_lines WHERE receipt_id = $1 GROUP BY 1) came
         WHERE l.id = came.purchase_order_line_id
        """,
        claim.resource_id,
    )
    return Begun(claim.resource_id, True)


async def claim_attempt(connection: Connection, *, receipt_id: UUID) -> bool:
    """Take the next attempt at a receipt, unless it is finished, too old, somebody's, or resting after a failure."""
    is_claimed = await connection.fetchval(
        """
        UPDATE receipts SET attempts = attempts + 1, next_attempt_at = now() + $2::text::interval
         WHERE id = $1 AND status = 'posting' AND next_attempt_at <= now() AND received_at > now() - $3::text::interval
        RETURNING true
        """,
        receipt_id, LEASE, KEY_LIFETIME,
    )  # fmt: skip
    return is_claimed is True


async def claim_due_receipt(connection: Connection) -> UUID | None:
    """Take the attempt that is due longest, of any receipt whose key the inventory-service still remembers."""
    return await connection.fetchval(
        """
        UPDATE receipts SET attempts = attempts + 1, next_attempt_at = now() + $1::text::interval
         WHERE id = (SELECT id FROM receipts
                      WHERE status = 'posting' AND next_attempt_at <= now() AND received_at > now() - $2::text::interval
                      ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING id
        """,
        LEASE, KEY_LIFETIME,
    )  # fmt: skip


async def settle_receipt(connection: Connection, *, receipt_id: UUID, movement_id: UUID) -> StoredAnswer | None:
    """The goods are in stock: finish the receipt, its order and its key, once. None if the receipt was withdrawn."""
    status = await _lock_order_of(connection, receipt_id)
    receipt = await find_receipt(connection, receipt_id=receipt_id) if status else None
    if receipt is None:
        return None
    if receipt.status == "posting":
        await connection.execute(
            "UPDATE receipts SET status = 'posted', movement_id = $2 WHERE id = $1", receipt_id, movement_id
        )
        await _count_as_received(connection, receipt)
        receipt = receipt.model_copy(update={"status": "posted", "movement_id": movement_id})
        await publish(connection, Event("receipt.posted", str(receipt_id), receipt.model_dump(mode="json")))
    answer = StoredAnswer(201, receipt.model_dump_json())
    await settle_key(connection, resource_id=receipt_id, answer=answer)
    return answer


async def withdraw_receipt(connection: Connection, *, receipt_id: UUID) -> None:
    """The goods cannot be taken into stock: undo the beginning, so that the same key may be used again."""
    await _lock_order_of(connection, receipt_id)
    if await connection.fetchval("SELECT true FROM receipts WHERE id = $1 AND status = 'posting'", receipt_id):
        await connection.execute(
            """
            UPDATE purchase_order_lines l SET receiving = l.receiving - came.quantity
              FROM (SELECT purchase_order_line_id, sum(quantity) AS quantity
                      FROM receipt_lines WHERE receipt_id = $1 GROUP BY 1) came
             WHERE l.id = came.purchase_order_line_id
            """,
            receipt_id,
        )
        await connection.execute("DELETE FROM receipts WHERE id = $1", receipt_id)
        await settle_key(connection, resource_id=receipt_id, answer=None)


async def postpone_receipt(connection: Connection, *, receipt_id: UUID) -> None:
    """End an attempt without a decision; the next one waits, longer after each."""
    await connection.execute(
        """
        UPDATE receipts SET next_attempt_at = now() + least($2, power(2, least(attempts, 10) - 1)) * interval '1 second'
         WHERE id = $1 AND status = 'posting'
        """,
        receipt_id, _BACKOFF_MAX_S,
    )  # fmt: skip


async def get_receipt(connection: Connection, *, receipt_id: UUID) -> Receipt:
    receipt = await find_receipt(connection, receipt_id=receipt_id)
    if receipt is None:
        raise NotFound("There is no such goods receipt.", code="receipt_not_found")
    return receipt


async def find_receipt(connection: Connection, *, receipt_id: UUID) -> Receipt | None:
    rows = await connection.fetch(
        """
        SELECT r.id, r.number, r.purchase_order_id, o.warehouse, r.reference, r.status, r.movement_id, r.received_by,
               r.received_at,
               c.purchase_order_line_id AS line_id, l.sku, c.quantity, c.lot, c.expires_on, c.location, l.unit_cost
          FROM receipts r
          JOIN purchase_orders o ON o.id = r.purchase_order_id
          JOIN receipt_lines c ON c.receipt_id = r.id
          JOIN purchase_order_lines l ON l.id = c.purchase_order_line_id
         WHERE r.id = $1
         ORDER BY c.line
        """,
        receipt_id,
    )
    if not rows:
        return None
    lines = [ReceiptLine(**{name: row[name] for name in ReceiptLine.model_fields}) for row in rows]
    return Receipt(**_header(rows[0]).model_dump(), lines=lines)


async def list_receipts(
    connection: Connection, *, order_id: UUID | None, limit: int, cursor: str | None
) -> Page[ReceiptHeader]:
    """The newest first, without their lines; those of one purchase order if it is named."""
    (before,) = decode_cursor(cursor, UUID) or (_NEWEST,)
    rows = await connection.fetch(
        """
        SELECT r.id, r.number, r.purchase_order_id, o.warehouse, r.reference, r.status, r.movement_id, r.received_by,
               r.received_at
          FROM receipts r
          JOIN purchase_orders o ON o.id = r.purchase_order_id
         WHERE r.id < $1 AND ($2::uuid IS NULL OR r.purchase_order_id = $2)
         ORDER BY r.id DESC LIMIT $3
        """,
        before, order_id, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    return Page(items=[_header(row) for row in page], next=following)


async def _check_lines(connection: Connection, order_id: UUID, new: NewReceipt) -> None:
    totals: dict[UUID, Decimal] = defaultdict(Decimal)
    for line in new.lines:
        totals[line.line_id] += line.quantity
    rows = await connection.fetch(
        """
        SELECT id, line, sku, trunc(ordered * (1 + tolerance), 6) - received - receiving AS allowed
          FROM purchase_order_lines WHERE purchase_order_id = $1 AND id = ANY ($2::uuid[])
        """,
        order_id, list(totals),
    )  # fmt: skip
    found: dict[UUID, Row] = {row["id"]: row for row in rows}
    _refuse_lines(new, totals.keys() - found.keys(), "unknown_line", "The purchase order has no such line.")
    over = [row for row in rows if totals[row["id"]] > row["allowed"]]
    if over:
        raise _over_receipt(over, totals, new)


def _refuse_lines(new: NewReceipt, wrong: set[UUID], code: str, detail: str) -> None:
    if wrong:
        raise Invalid(detail, code=code, errors=_point_at(new, wrong, code, detail))


def _over_receipt(over: list[Row], totals: Mapping[UUID, Decimal], new: NewReceipt) -> Conflict:
    lines = [
        {
            "line_id": str(row["id"]),
            "line": row["line"],
            "sku": row["sku"],
            "requested": plain(totals[row["id"]]),
            "allowed": plain(row["allowed"]),
        }
        for row in over
    ]
    first = lines[0]
    detail = (
        f"Of line {first['line']} ({first['sku']}) at most {first['allowed']} may still come, not {first['requested']}."
    )
    errors = _point_at(new, {row["id"] for row in over}, "over_receipt", "This is more than may still come.")
    return Conflict(detail, code="over_receipt", errors=errors, lines=lines)


def _point_at(new: NewReceipt, wrong: set[UUID], code: str, detail: str) -> list[FieldError]:
    field = "line_id" if code == "unknown_line" else "quantity"
    places = [place for place, line in enumerate(new.lines) if line.line_id in wrong]
    return [{"pointer": f"/lines/{place}/{field}", "code": code, "detail": detail} for place in places[:_ERRORS_MAX]]


async def _insert_receipt(
    connection: Connection, receipt_id: UUID, order_id: UUID, new: NewReceipt, actor: Actor
) -> None:
    # The transaction that writes the receipt also holds its first attempt.
    await connection.execute(
        """
        INSERT INTO receipts (id, purchase_order_id, reference, received_by, deadline, next_attempt_at)
        VALUES ($1, $2, $3, $4, now() + $5::text::interval, now() + $6::text::interval)
        """,
        receipt_id, order_id, new.reference, actor.responsible, DEADLINE, LEASE,
    )  # fmt: skip
    await connection.execute(
        """
        INSERT INTO receipt_lines (receipt_id, line, purchase_order_line_id, quantity, lot, expires_on, location)
        SELECT $1, line, line_id, quantity, lot, expires_on, location
          FROM unnest($2::uuid[], $3::numeric[], $4::text[], $5::date[], $6::text[])
               WITH ORDINALITY AS given (line_id, quantity, lot, expires_on, location, line)
        """,
        receipt_id,
        [line.line_id for line in new.lines],
        [line.quantity for line in new.lines],
        [line.lot for line in new.lines],
        [line.expires_on for line in new.lines],
        [line.location for line in new.lines],
    )


async def _lock_order_of(connection: Connection, receipt_id: UUID) -> str | None:
    order_id = await connection.fetchval("SELECT purchase_order_id FROM receipts WHERE id = $1", receipt_id)
    return None if order_id is None else await lock_order(connection, order_id)


async def _count_as_received(connection: Connection, receipt: Receipt) -> None:
    await connection.execute(
        """
        UPDATE purchase_order_lines l
           SET receiving = l.receiving - came.quantity, received = l.received + came.quantity
          FROM (SELECT purchase_order_line_id, sum(quantity) AS quantity
                  FROM receipt_lines WHERE receipt_id = $1 GROUP BY 1) came
         WHERE l.id = came.purchase_order_line_id
        """,
        receipt.id,
    )
    # An order that was closed while these goods were on their way into stock stays closed.
    await connection.execute(
        """
        UPDATE purchase_orders o
           SET version = o.version + 1,
               status = CASE WHEN o.status = 'closed' THEN 'closed'
                             WHEN EXISTS (SELECT FROM purchase_order_lines l
                                           WHERE l.purchase_order_id = o.id AND l.received < l.ordered)
                             THEN 'partially_received' ELSE 'received' END
         WHERE o.id = $1
        """,
        receipt.purchase_order_id,
    )


def _header(row: Row) -> ReceiptHeader:
    fields: dict[str, Any] = {name: row[name] for name in ReceiptHeader.model_fields}
    return ReceiptHeader(**fields)
