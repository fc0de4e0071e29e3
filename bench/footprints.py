"""The rows that a request leaves behind: counted on both sides, so that a rate is only a rate when all of it was written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

from bench.installation import Installation


@dataclass(frozen=True)
class Footprint:
    """One query a side for the rows in each table by now, and how many of them one request adds."""

    product: LiteralString
    reference: LiteralString
    rows: Mapping[str, int]

    async def count(self, installation: Installation, *, of_reference: bool = False) -> Mapping[str, int]:
        """Rows by table, at present."""
        row = await installation.admin.fetchrow(self.reference if of_reference else self.product)
        assert row is not None, "an aggregate has a row"
        return dict(row)

    def find_faults(self, before: Mapping[str, int], after: Mapping[str, int], *, requests: int) -> tuple[str, ...]:
        """Tables that have more or fewer new rows than the acknowledged requests should have written."""
        return tuple(
            f"{after[table] - before[table]} new rows in {table} for {requests} requests, not {requests * each}"
            for table, each in self.rows.items()
            if after[table] - before[table] != requests * each
        )


NOTHING = Footprint(product="SELECT 0 AS nothing", reference="SELECT 0 AS nothing", rows={})
"""A read leaves nothing behind."""

RESERVATION = Footprint(
    product="""
        SELECT (SELECT count(*) FROM inventory.reservations) AS reservations,
               (SELECT count(*) FROM inventory.reservation_lines) AS reservation_lines,
               (SELECT count(*) FROM inventory.outbox) AS outbox,
               (SELECT count(*) FROM inventory.idempotency_keys) AS idempotency_keys
    """,
    reference="""
        SELECT (SELECT count(*) FROM bench.reservations) AS reservations,
               (SELECT count(*) FROM bench.reservation_lines) AS reservation_lines,
               (SELECT count(*) FROM bench.outbox) AS outbox,
               (SELECT count(*) FROM bench.idempotency_keys) AS idempotency_keys
    """,
    rows={"reservations": 1, "reservation_lines": 1, "outbox": 1, "idempotency_keys": 1},
)

ORDER = Footprint(
    product="""
        SELECT (SELECT count(*) FROM "order".orders WHERE status = 'allocated') AS orders,
               (SELECT count(*) FROM "order".order_lines WHERE allocated = ordered) AS order_lines,
               (SELECT count(*) FROM "order".allocations WHERE step = 'done') AS allocations,
               (SELECT count(*) FROM "order".allocation_lines) AS allocation_lines,
               (SELECT count(*) FROM "order".outbox) AS order_outbox,
               (SELECT count(*) FROM "order".idempotency_keys) AS order_idempotency_keys,
               (SELECT count(*) FROM inventory.reservations WHERE status = 'confirmed') AS reservations,
               (SELECT count(*) FROM inventory.reservation_lines) AS reservation_lines,
               (SELECT count(*) FROM inventory.outbox) AS outbox,
               (SELECT count(*) FROM inventory.idempotency_keys) AS idempotency_keys
    """,
    reference="""
        SELECT (SELECT count(*) FROM bench.orders) AS orders,
               (SELECT count(*) FROM bench.order_lines) AS order_lines,
               (SELECT count(*) FROM bench.allocations) AS allocations,
               (SELECT count(*) FROM bench.allocation_lines) AS allocation_lines,
               (SELECT count(*) FROM bench.order_outbox) AS order_outbox,
               (SELECT count(*) FROM bench.order_idempotency_keys) AS order_idempotency_keys,
               (SELECT count(*) FROM bench.reservations) AS reservations,
               (SELECT count(*) FROM bench.reservation_lines) AS reservation_lines,
               (SELECT count(*) FROM bench.outbox) AS outbox,
               (SELECT count(*) FROM bench.idempotency_keys) AS idempotency_keys
    """,
    rows={
        "orders": 1, "order_lines": 3, "allocations": 1, "allocation_lines": 3, "order_outbox": 2,
        "order_idempotency_keys": 1, "reservations": 1, "reservation_lines": 3, "outbox": 2, "idempotency_keys": 1,
    },
)  # fmt: skip
