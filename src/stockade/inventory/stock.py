"""Stock as it is, and as it was: reads only."""

from collections.abc import Sequence
from datetime import datetime

from stockade.inventory.shapes import ZERO, StockLevel, StockTotals
from stockade.kit.database import Connection, Row
from stockade.kit.errors import NotFound
from stockade.kit.pages import Page, decode_cursor, paginate


async def list_stock(
    connection: Connection, *, skus: Sequence[str], warehouse: str | None, limit: int, cursor: str | None
) -> Page[StockLevel]:
    """Levels by SKU and warehouse. A hold whose time is over does not count, whether or not the sweeper has come by."""
    after = decode_cursor(cursor, str, str) or ("", "")
    rows = await connection.fetch(
        """
        SELECT i.sku, w.code AS warehouse, s.on_hand, s.sellable, s.reserved - e.quantity AS reserved, s.allocated
          FROM stock_levels s
          JOIN items i ON i.id = s.item_id
          JOIN warehouses w ON w.id = s.warehouse_id
          CROSS JOIN LATERAL (
            SELECT coalesce(sum(l.quantity), 0) AS quantity
              FROM reservations r JOIN reservation_lines l ON l.reservation_id = r.id
             WHERE r.status = 'held' AND r.expires_at <= clock_timestamp()
               AND l.item_id = s.item_id AND l.warehouse_id = s.warehouse_id) e
         WHERE ($1::text[] IS NULL OR i.sku = ANY ($1)) AND ($2::text IS NULL OR w.code = $2) AND (i.sku, w.code) > ($3, $4)
         ORDER BY i.sku, w.code LIMIT $5
        """,
        list(skus) or None, warehouse, *after, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["sku"], row["warehouse"]))
    return Page(items=[_level(row) for row in page], next=following)


async def list_stock_as_of(
    connection: Connection,
    *,
    skus: Sequence[str],
    warehouse: str | None,
    as_of: datetime,
    limit: int,
    cursor: str | None,
) -> Page[StockLevel]:
    """What was on hand at an instant of business time, from the ledger alone."""
    after = decode_cursor(cursor, str, str) or ("", "")
    rows = await connection.fetch(
        """
        SELECT i.sku, w.code AS warehouse, t.on_hand, t.sellable
          FROM stock_levels s
          JOIN items i ON i.id = s.item_id
          JOIN warehouses w ON w.id = s.warehouse_id
          CROSS JOIN LATERAL (
            SELECT coalesce(sum(e.quantity), 0) AS on_hand,
                   coalesce(sum(e.quantity) FILTER (WHERE e.status = 'sellable'), 0) AS sellable
              FROM entries e
             WHERE e.item_id = s.item_id AND e.warehouse_id = s.warehouse_id AND e.occurred_at <= $6 AND e.is_physical) t
         WHERE ($1::text[] IS NULL OR i.sku = ANY ($1)) AND ($2::text IS NULL OR w.code = $2) AND (i.sku, w.code) > ($3, $4)
         ORDER BY i.sku, w.code LIMIT $5
        """,
        list(skus) or None, warehouse, *after, limit + 1, as_of,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["sku"], row["warehouse"]))
    items = [
        StockLevel(
            sku=row["sku"], warehouse=row["warehouse"], on_hand=row["on_hand"], sellable=row["sellable"],
            reserved=None, allocated=None, available=None,
        )
        for row in page
    ]  # fmt: skip
    return Page(items=items, next=following)


async def get_totals(connection: Connection, *, sku: str) -> StockTotals:
    """One item everywhere. Raises NotFound for a SKU that stock has never heard of."""
    if not await connection.fetchval("SELECT true FROM items WHERE sku = $1", sku):
        raise NotFound(f"There is no product {sku}.", code="item_not_found")
    levels = (await list_stock(connection, skus=[sku], warehouse=None, limit=1_000, cursor=None)).items
    return StockTotals(
        sku=sku,
        on_hand=sum((level.on_hand for level in levels), ZERO),
        sellable=sum((level.sellable for level in levels), ZERO),
        reserved=sum((level.reserved or ZERO for level in levels), ZERO),
        allocated=sum((level.allocated or ZERO for level in levels), ZERO),
        available=sum((level.available or ZERO for level in levels), ZERO),
        warehouses=levels,
    )


def _level(row: Row) -> StockLevel:
    return StockLevel(**row, available=row["sellable"] - row["reserved"] - row["allocated"])
