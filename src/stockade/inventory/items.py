"""What stock knows of the catalog's products: heard by event, asked for when a SKU is new."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from stockade.inventory import calls
from stockade.inventory.errors import UnknownNames
from stockade.inventory.shapes import Item
from stockade.kit.context import Context
from stockade.kit.database import Connection
from stockade.kit.errors import FieldError, NotFound
from stockade.kit.pages import Page, decode_cursor, paginate

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A line's item and warehouse."""

    item_id: UUID
    sku: str
    tracking: str
    warehouse_id: UUID
    warehouse: str
    has_level: bool = True
    """Whether the warehouse has ever kept the item."""

    @property
    def key(self) -> tuple[UUID, UUID]:
        return self.item_id, self.warehouse_id


async def find_places(
    connection: Connection, skus: Sequence[str], warehouses: Sequence[str], *, field: str = "warehouse"
) -> list[Place]:
    """The item and warehouse of each line, in order. Raises UnknownNames with a pointer for every name that is not known."""
    rows = await connection.fetch(
        """
        SELECT l.place, l.sku, l.warehouse, i.id AS item_id, i.tracking, w.id AS warehouse_id, s.item_id IS NOT NULL AS has_level
          FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS l (sku, warehouse, place)
          LEFT JOIN items i ON i.sku = l.sku
          LEFT JOIN warehouses w ON w.code = l.warehouse
          LEFT JOIN stock_levels s ON s.item_id = i.id AND s.warehouse_id = w.id
         ORDER BY l.place
        """,
        list(skus), list(warehouses),
    )  # fmt: skip
    errors: list[FieldError] = []
    unknown: list[str] = []
    for row in rows:
        pointer = f"/lines/{row['place'] - 1}"
        if row["item_id"] is None:
            unknown.append(row["sku"])
            errors.append(
                {"pointer": f"{pointer}/sku", "code": "unknown_sku", "detail": f"There is no product {row['sku']}."}
            )
        if row["warehouse_id"] is None:
            detail = f"There is no warehouse {row['warehouse']}."
            errors.append({"pointer": f"{pointer}/{field}", "code": "unknown_warehouse", "detail": detail})
    if errors:
        raise UnknownNames(errors, unknown)
    return [
        Place(row["item_id"], row["sku"], row["tracking"], row["warehouse_id"], row["warehouse"], row["has_level"])
        for row in rows
    ]


async def with_known_items(context: Context, work: Callable[[], Awaitable[T]]) -> T:
    """Run something that may meet a SKU which only the catalog knows yet: learn it there, then run it once more."""
    try:
        return await work()
    except UnknownNames as error:
        if not error.skus:
            raise
        learnt = await calls.fetch_products(context.clients["product-catalog-service"], skus=sorted(set(error.skus)))
        if not learnt:
            raise
        await context.database.run(learn_items, products=learnt)
        return await work()


async def with_known_item(context: Context, sku: str, work: Callable[[], Awaitable[T]]) -> T:
    """As `with_known_items`, for work that answers NotFound when stock has not heard of the one SKU."""
    try:
        return await work()
    except NotFound:
        learnt = await calls.fetch_products(context.clients["product-catalog-service"], skus=[sku])
        if not learnt:
            raise
        await context.database.run(learn_items, products=learnt)
        return await work()


async def learn_items(connection: Connection, *, products: Sequence[Mapping[str, Any]]) -> None:
    """Take over what the catalog says, unless something newer is known."""
    ordered = sorted(products, key=lambda product: str(product["id"]))
    columns = [
        [product["id"] for product in ordered],
        *([product[field] for product in ordered] for field in ("sku", "name", "unit", "tracking", "is_active")),
        [int(product.get("version", 0)) for product in ordered],
    ]
    # Two statements, because an item that somebody else is learning at this moment conflicts by SKU or by id.
    await connection.execute(
        """
        INSERT INTO items (id, sku, name, unit, tracking, is_active, version)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::integer[])
        ON CONFLICT DO NOTHING
        """,
        *columns,
    )
    await connection.execute(
        """
        UPDATE items i SET name = n.name, unit = n.unit, is_active = n.is_active, version = n.version
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::integer[])
               AS n (id, name, unit, is_active, version)
         WHERE i.id = n.id AND i.version < n.version
        """,
        columns[0], columns[2], columns[3], columns[5], columns[6],
    )  # fmt: skip


async def apply_product_events(connection: Connection, events: Sequence[Mapping[str, Any]]) -> None:
    """`product.created` and `product.changed` of the catalog's feed; of several changes of a product the last counts."""
    products = {
        event["subject"]: event["data"] for event in events if event["type"] in ("product.created", "product.changed")
    }
    await learn_items(connection, products=list(products.values()))


async def get_item(connection: Connection, *, sku: str) -> Item:
    row = await connection.fetchrow("SELECT id, sku, name, unit, tracking, is_active FROM items WHERE sku = $1", sku)
    if row is None:
        raise NotFound(f"There is no product {sku}.", code="item_not_found")
    return Item(**row)


async def list_items(connection: Connection, *, limit: int, cursor: str | None) -> Page[Item]:
    """Items by SKU."""
    (after,) = decode_cursor(cursor, str) or ("",)
    rows = await connection.fetch(
        "SELECT id, sku, name, unit, tracking, is_active FROM items WHERE sku > $1 ORDER BY sku LIMIT $2",
        after,
        limit + 1,
    )
    page, following = paginate(rows, limit, lambda row: (row["sku"],))
    return Page(items=[Item(**row) for row in page], next=following)
