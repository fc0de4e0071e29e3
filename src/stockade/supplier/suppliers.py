"""Suppliers and their items: whom the company buys from, what they offer and for how much."""

from collections.abc import Sequence
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, FieldError, Invalid, NotFound
from stockade.kit.etags import check_version
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.supplier.shapes import NewSupplier, Supplier, SupplierChange, SupplierItem, SupplierItems


async def create_supplier(connection: Connection, *, actor: Actor, new: NewSupplier) -> Supplier:
    """A new supplier. Raises Conflict `supplier_code_taken`."""
    row = await connection.fetchrow(
        """
        INSERT INTO suppliers (id, code, name, email, lead_time_days, over_receipt_tolerance, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (code) DO NOTHING
        RETURNING id, code, name, email, lead_time_days, over_receipt_tolerance, created_by, created_at, version
        """,
        uuid7(), new.code, new.name, new.email, new.lead_time_days, new.over_receipt_tolerance, actor.responsible,
    )  # fmt: skip
    if row is None:
        raise Conflict(f"A supplier with the code {new.code} exists already.", code="supplier_code_taken")
    return Supplier(**row)


async def get_supplier(connection: Connection, *, supplier_id: UUID) -> Supplier:
    row = await connection.fetchrow(
        """
        SELECT id, code, name, email, lead_time_days, over_receipt_tolerance, created_by, created_at, version
          FROM suppliers WHERE id = $1
        """,
        supplier_id,
    )
    if row is None:
        raise _not_found()
    return Supplier(**row)


async def list_suppliers(connection: Connection, *, limit: int, cursor: str | None) -> Page[Supplier]:
    """Suppliers by code."""
    (after,) = decode_cursor(cursor, str) or ("",)
    rows = await connection.fetch(
        """
        SELECT id, code, name, email, lead_time_days, over_receipt_tolerance, created_by, created_at, version
          FROM suppliers WHERE code > $1 ORDER BY code LIMIT $2
        """,
        after, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["code"],))
    return Page(items=[Supplier(**row) for row in page], next=following)


async def change_supplier(
    connection: Connection, *, supplier_id: UUID, change: SupplierChange, if_match: str
) -> Supplier:
    """Change what is given. A new tolerance counts for orders made from now on."""
    version = await connection.fetchval("SELECT version FROM suppliers WHERE id = $1 FOR UPDATE", supplier_id)
    if version is None:
        raise _not_found()
    check_version(if_match, version)
    row = await connection.fetchrow(
        """
        UPDATE suppliers
           SET name = coalesce($2, name),
               over_receipt_tolerance = coalesce($3, over_receipt_tolerance),
               email = CASE WHEN $4 THEN $5 ELSE email END,
               lead_time_days = CASE WHEN $6 THEN $7 ELSE lead_time_days END,
               version = version + 1
         WHERE id = $1
        RETURNING id, code, name, email, lead_time_days, over_receipt_tolerance, created_by, created_at, version
        """,
        supplier_id,
        change.name,
        change.over_receipt_tolerance,
        "email" in change.model_fields_set, change.email,
        "lead_time_days" in change.model_fields_set, change.lead_time_days,
    )  # fmt: skip
    assert row is not None, "the row is locked"
    return Supplier(**row)


async def put_items(
    connection: Connection, *, actor: Actor, supplier_id: UUID, items: Sequence[SupplierItem]
) -> SupplierItems:
    """Take the items into the supplier's list; each replaces all that was known of its SKU. Answers what is kept now."""
    if not await connection.fetchval("SELECT true FROM suppliers WHERE id = $1 FOR KEY SHARE", supplier_id):
        raise _not_found()
    await connection.execute(
        """
        INSERT INTO supplier_items AS present
               (supplier_id, sku, supplier_sku, unit_cost, minimum_quantity, pack_size, changed_by)
        SELECT $1, sku, supplier_sku, unit_cost, minimum_quantity, pack_size, $7
          FROM unnest($2::text[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[])
               AS given (sku, supplier_sku, unit_cost, minimum_quantity, pack_size)
         ORDER BY sku
        ON CONFLICT (supplier_id, sku) DO UPDATE
           SET supplier_sku = excluded.supplier_sku, unit_cost = excluded.unit_cost,
               minimum_quantity = excluded.minimum_quantity, pack_size = excluded.pack_size,
               changed_by = excluded.changed_by, changed_at = now()
        """,
        supplier_id,
        [item.sku for item in items],
        [item.supplier_sku for item in items],
        [item.unit_cost for item in items],
        [item.minimum_quantity for item in items],
        [item.pack_size for item in items],
        actor.responsible,
    )  # fmt: skip
    return SupplierItems(items=list(items))


async def list_items(
    connection: Connection, *, supplier_id: UUID, limit: int, cursor: str | None
) -> Page[SupplierItem]:
    """The items of a supplier by SKU."""
    (after,) = decode_cursor(cursor, str) or ("",)
    await get_supplier(connection, supplier_id=supplier_id)
    rows = await connection.fetch(
        """
        SELECT sku, supplier_sku, unit_cost, minimum_quantity, pack_size
          FROM supplier_items WHERE supplier_id = $1 AND sku > $2 ORDER BY sku LIMIT $3
        """,
        supplier_id, after, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["sku"],))
    return Page(items=[SupplierItem(**row) for row in page], next=following)


def check_items_differ(items: Sequence[SupplierItem]) -> None:
    """Refuse a list that says two things about one SKU."""
    first: dict[str, int] = {}
    errors: list[FieldError] = []
    for place, item in enumerate(items):
        if first.setdefault(item.sku, place) != place:
            detail = f"{item.sku} is in the list already, as item {first[item.sku] + 1}."
            errors.append({"pointer": f"/items/{place}/sku", "code": "duplicate_sku", "detail": detail})
    if errors:
        raise Invalid(errors[0]["detail"], code="duplicate_sku", errors=errors[:20])


def _not_found() -> NotFound:
    return NotFound("There is no such supplier.", code="supplier_not_found")
