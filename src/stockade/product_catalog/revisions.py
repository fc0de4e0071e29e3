"""Revisions: a product before and after one change, checked, and written with history and event in a few statements.

One product or a thousand take the same path: lock what they refer to, judge each in turn, store all that are accepted.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, RetryTransaction
from stockade.kit.errors import Conflict, FieldError, Invalid, NotFound
from stockade.kit.events import Event, publish
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.product_catalog.gtins import key_of
from stockade.product_catalog.shapes import Change, Product

_FIELDS = (
    "sku",
    "name",
    "description",
    "unit",
    "tracking",
    "category",
    "barcodes",
    "price",
    "attributes",
    "is_active",
)
_EVENT_FIELDS = {"id", "sku", "name", "unit", "tracking", "is_active", "version"}
_CONFLICTS = frozenset(("not_changeable", "barcode_taken"))
_NEWEST = 2**31 - 1


@dataclass(frozen=True)
class Revision:
    """A product as it was (None: there was none) and as it shall be."""

    before: Product | None
    after: Product

    @cached_property
    def changes(self) -> dict[str, dict[str, Any]]:
        """By field, `from` and `to`, ready for JSON; empty when nothing differs."""
        changed = {field for field in _FIELDS if self._was(field) != getattr(self.after, field)}
        if not changed:
            return {}
        was = self.before.model_dump(mode="json", include=changed) if self.before else {}
        becomes = self.after.model_dump(mode="json", include=changed)
        return {field: {"from": was.get(field), "to": becomes[field]} for field in _FIELDS if field in changed}

    @property
    def has_other_barcodes(self) -> bool:
        return (self.before.barcodes if self.before else []) != self.after.barcodes

    def _was(self, field: str) -> Any:
        return getattr(self.before, field) if self.before else None


@dataclass(frozen=True)
class References:
    """What revisions refer to: units and categories that there are, and whose each barcode is (by key)."""

    units: frozenset[str]
    categories: frozenset[str]
    owners: dict[str, UUID]

    def find_errors(self, revision: Revision) -> list[FieldError]:
        """What forbids a revision; nothing allows it."""
        return [*_find_unchangeable(revision), *self._find_unknown(revision), *self._find_taken(revision)]

    def hand_over(self, revision: Revision) -> None:
        """Give the barcodes to the product of an accepted revision, and free those that it no longer has."""
        for code in revision.before.barcodes if revision.before else ():
            self.owners.pop(key_of(code), None)
        for code in revision.after.barcodes:
            self.owners[key_of(code)] = revision.after.id

    def _find_unknown(self, revision: Revision) -> Iterable[FieldError]:
        unit, category = revision.after.unit, revision.after.category
        if revision.before is None and unit not in self.units:
            yield {"pointer": "/unit", "code": "unknown_unit", "detail": f"There is no unit {unit}; see GET /units."}
        if category is not None and category not in self.categories:
            yield {"pointer": "/category", "code": "unknown_category", "detail": f"There is no category {category}."}

    def _find_taken(self, revision: Revision) -> Iterable[FieldError]:
        for place, code in enumerate(revision.after.barcodes):
            if self.owners.get(key_of(code), revision.after.id) != revision.after.id:
                detail = f"Another product has the barcode {code}."
                yield {"pointer": f"/barcodes/{place}", "code": "barcode_taken", "detail": detail}


async def lock_references(connection: Connection, revisions: Sequence[Revision]) -> References:
    """What these revisions refer to; the barcodes that they have or want are locked in key order.

    Call it with the products locked. Units and categories are never removed, so they need no lock.
    """
    units = {revision.after.unit for revision in revisions}
    categories = {revision.after.category for revision in revisions if revision.after.category is not None}
    products = [product for r in revisions if r.has_other_barcodes for product in (r.before, r.after) if product]
    keys = sorted({key_of(code) for product in products for code in product.barcodes})
    known_units = await connection.fetch("SELECT code FROM units WHERE code = ANY ($1)", list(units))
    known_categories = await connection.fetch("SELECT code FROM categories WHERE code = ANY ($1)", list(categories))
    owners = await connection.fetch(
        "SELECT key, product_id FROM barcodes WHERE key = ANY ($1) ORDER BY key FOR UPDATE", keys
    )
    return References(
        units=frozenset(row["code"] for row in known_units),
        categories=frozenset(row["code"] for row in known_categories),
        owners={row["key"]: row["product_id"] for row in owners},
    )


def check_revision(revision: Revision, references: References) -> None:
    """Refuse a revision with all that is wrong in it: Conflict where the present state forbids it, else Invalid."""
    errors = references.find_errors(revision)
    if not errors:
        return
    first = min(errors, key=lambda error: error["code"] not in _CONFLICTS)
    kind = Conflict if first["code"] in _CONFLICTS else Invalid
    raise kind(first["detail"], code=first["code"], errors=errors)


async def store_revisions(connection: Connection, *, actor: Actor, revisions: Sequence[Revision]) -> None:
    """Write checked revisions of different products, each with its history and its event.

    Raises RetryTransaction when somebody else has just committed the same SKU or barcode: the next attempt sees it.
    """
    ordered = sorted(revisions, key=lambda revision: revision.after.sku)
    await _insert_products(connection, [revision.after for revision in ordered if revision.before is None])
    await _update_products(connection, [revision.after for revision in ordered if revision.before is not None])
    await _replace_barcodes(connection, [revision for revision in ordered if revision.has_other_barcodes])
    await _append_changes(connection, actor, ordered)
    await publish(connection, *map(_event, ordered))


async def list_changes(connection: Connection, *, sku: str, limit: int, cursor: str | None) -> Page[Change]:
    """The history of a product, the newest change first."""
    (before,) = decode_cursor(cursor, int) or (_NEWEST,)
    product_id = await connection.fetchval("SELECT id FROM products WHERE sku = $1", sku)
    if product_id is None:
        raise NotFound(f"There is no product {sku}.", code="product_not_found")
    rows = await connection.fetch(
        """
        SELECT version, at, actor, changes FROM product_changes
         WHERE product_id = $1 AND version < $2 ORDER BY version DESC LIMIT $3
        """,
        product_id, before, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["version"],))
    return Page(items=[Change(**row) for row in page], next=following)


def _find_unchangeable(revision: Revision) -> Iterable[FieldError]:
    for field in ("unit", "tracking"):
        if revision.before and field in revision.changes:
            detail = f"The {field} of a product cannot change: its stock is kept in it."
            yield {"pointer": f"/{field}", "code": "not_changeable", "detail": detail}


async def _insert_products(connection: Connection, products: Sequence[Product]) -> None:
    if not products:
        return
    added = await connection.fetchval(
        """
        WITH added AS (
            INSERT INTO products (id, sku, unit, tracking, name, description, category, price, attributes, is_active,
                                  version, created_at, updated_at)
            SELECT id, sku, unit, tracking, name, description, category, price, attributes::jsonb, is_active, 1, $11, $11
              FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::numeric[],
                          $9::text[], $10::boolean[])
                   AS new (id, sku, unit, tracking, name, description, category, price, attributes, is_active)
             ORDER BY sku COLLATE "C"
            ON CONFLICT (sku) DO NOTHING RETURNING 1
        ) SELECT count(*) FROM added
        """,
        [product.id for product in products],
        [product.sku for product in products],
        [product.unit for product in products],
        [product.tracking for product in products],
        *_mutable_columns(products),
        products[0].created_at,
    )  # fmt: skip
    if added < len(products):
        raise RetryTransaction


async def _update_products(connection: Connection, products: Sequence[Product]) -> None:
    if not products:
        return
    await connection.execute(
        """
        UPDATE products p
           SET name = new.name, description = new.description, category = new.category, price = new.price,
               attributes = new.attributes::jsonb, is_active = new.is_active, version = new.version, updated_at = $9
          FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::text[], $8::boolean[])
               AS new (id, version, name, description, category, price, attributes, is_active)
         WHERE p.id = new.id
        """,
        [product.id for product in products],
        [product.version for product in products],
        *_mutable_columns(products),
        products[0].updated_at,
    )  # fmt: skip


def _mutable_columns(products: Sequence[Product]) -> tuple[list[Any], ...]:
    return (
        [product.name for product in products],
        [product.description for product in products],
        [product.category for product in products],
        [product.price for product in products],
        [json.dumps(product.attributes) for product in products],
        [product.is_active for product in products],
    )


async def _replace_barcodes(connection: Connection, revisions: Sequence[Revision]) -> None:
    if emptied := [revision.after.id for revision in revisions if revision.before and revision.before.barcodes]:
        await connection.execute("DELETE FROM barcodes WHERE product_id = ANY ($1)", emptied)
    rows = sorted(
        (key_of(code), code, revision.after.id, place)
        for revision in revisions
        for place, code in enumerate(revision.after.barcodes, start=1)
    )
    if not rows:
        return
    added = await connection.fetchval(
        """
        WITH added AS (
            INSERT INTO barcodes (code, product_id, place)
            SELECT code, product_id, place
              FROM unnest($1::text[], $2::uuid[], $3::smallint[]) WITH ORDINALITY AS new (code, product_id, place, turn)
             ORDER BY turn
            ON CONFLICT (key) DO NOTHING RETURNING 1
        ) SELECT count(*) FROM added
        """,
        [code for _, code, _, _ in rows],
        [product_id for _, _, product_id, _ in rows],
        [place for _, _, _, place in rows],
    )  # fmt: skip
    if added < len(rows):
        raise RetryTransaction


async def _append_changes(connection: Connection, actor: Actor, revisions: Sequence[Revision]) -> None:
    await connection.execute(
        """
        INSERT INTO product_changes (product_id, version, at, actor, changes)
        SELECT product_id, version, now(), $4, changes::jsonb
          FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS new (product_id, version, changes)
        """,
        [revision.after.id for revision in revisions],
        [revision.after.version for revision in revisions],
        [json.dumps(revision.changes) for revision in revisions],
        actor.responsible,
    )  # fmt: skip


def _event(revision: Revision) -> Event:
    kind = "product.changed" if revision.before else "product.created"
    return Event(kind, str(revision.after.id), revision.after.model_dump(mode="json", include=_EVENT_FIELDS))
