"""Products: made, found, changed. Their changes are written by `revisions`, many at a time or one."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, NotFound
from stockade.kit.etags import check_version
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.product_catalog.categories import list_codes_below
from stockade.product_catalog.gtins import key_of
from stockade.product_catalog.revisions import Revision, check_revision, lock_references, store_revisions
from stockade.product_catalog.shapes import NewProduct, Product, ProductChange, ProductEntries, ProductEntry


async def create_product(connection: Connection, *, actor: Actor, product: NewProduct) -> Product:
    """A new product. Raises Conflict `sku_taken` and `barcode_taken`, Invalid `unknown_unit` and `unknown_category`."""
    if await lock_products(connection, [product.sku]):
        raise Conflict(f"There is a product {product.sku} already.", code="sku_taken")
    revision = Revision(None, begin_product(product, at=await read_now(connection)))
    check_revision(revision, await lock_references(connection, [revision]))
    await store_revisions(connection, actor=actor, revisions=[revision])
    return revision.after


async def change_product(
    connection: Connection, *, actor: Actor, sku: str, change: ProductChange, if_match: str
) -> Product:
    """Change what is given. Raises as `create_product`, and Conflict `not_changeable` for another unit or tracking.

    A change that changes nothing leaves no trace: same version, no history, no event.
    """
    before = (await lock_products(connection, [sku])).get(sku)
    if before is None:
        raise _no_product(sku)
    check_version(if_match, before.version)
    revision = Revision(before, amend_product(before, change, at=await read_now(connection)))
    if not revision.changes:
        return before
    check_revision(revision, await lock_references(connection, [revision]))
    await store_revisions(connection, actor=actor, revisions=[revision])
    return revision.after


async def get_product(connection: Connection, *, sku: str) -> Product:
    found = await read_products(connection, [sku])
    if sku not in found:
        raise _no_product(sku)
    return found[sku]


async def get_product_by_barcode(connection: Connection, *, code: str) -> Product:
    """The product of a barcode; a GTIN is found in each of its lengths."""
    sku = await connection.fetchval(
        "SELECT p.sku FROM barcodes b JOIN products p ON p.id = b.product_id WHERE b.key = $1", key_of(code)
    )
    if sku is None:
        raise NotFound("No product has this barcode.", code="barcode_not_found")
    return await get_product(connection, sku=sku)


async def list_products(
    connection: Connection,
    *,
    words: str | None,
    category: str | None,
    is_active: bool | None,
    limit: int,
    cursor: str | None,
) -> Page[Product]:
    """Products by SKU: those whose SKU begins with `words` or whose name has a word beginning with each of them; those
    in a category or in one below it."""
    (after,) = decode_cursor(cursor, str) or ("",)
    codes = None if category is None else await list_codes_below(connection, category)
    # Two statements, because one that may or may not have words gets a plan that serves neither.
    if words is None:
        rows = await connection.fetch(_LIST, after, limit + 1, codes, is_active)
    else:
        rows = await connection.fetch(_SEARCH, after, limit + 1, codes, is_active, words)
    page, following = paginate(rows, limit, lambda row: (row["sku"],))
    return Page(items=list((await read_products(connection, [row["sku"] for row in page])).values()), next=following)


async def list_entries(connection: Connection, *, skus: Sequence[str]) -> ProductEntries:
    """What other services need to know of these products; a SKU that there is not is left out."""
    rows = await connection.fetch(
        "SELECT id, sku, name, unit, tracking, is_active FROM products WHERE sku = ANY ($1) ORDER BY sku", skus
    )
    return ProductEntries(items=[ProductEntry(**row) for row in rows])


def begin_product(product: NewProduct, *, at: datetime) -> Product:
    return Product(**dict(product), id=uuid7(), version=1, created_at=at, updated_at=at)


def amend_product(before: Product, change: NewProduct | ProductChange, *, at: datetime) -> Product:
    """The next version of a product, in which the fields that the change names are replaced."""
    given = {field: getattr(change, field) for field in change.model_fields_set}
    return before.model_copy(update=given | {"version": before.version + 1, "updated_at": at})


async def lock_products(connection: Connection, skus: Iterable[str]) -> dict[str, Product]:
    """The products that there are of these SKUs, locked in key order until the transaction ends."""
    rows = await connection.fetch(
        "SELECT sku FROM products WHERE sku = ANY ($1) ORDER BY sku FOR UPDATE", sorted(set(skus))
    )
    # Read after the locks: a statement that locks sees other tables, the barcodes, as they were before it had to wait.
    return await read_products(connection, [row["sku"] for row in rows]) if rows else {}


async def read_products(connection: Connection, skus: Sequence[str]) -> dict[str, Product]:
    """The products that there are of these SKUs, in the order of the SKU."""
    rows = await connection.fetch(
        """
        SELECT p.id, p.sku, p.name, p.description, p.unit, p.tracking, p.category, p.price, p.attributes, p.is_active,
               p.version, p.created_at, p.updated_at,
               ARRAY(SELECT b.code FROM barcodes b WHERE b.product_id = p.id ORDER BY b.place) AS barcodes
          FROM products p WHERE p.sku = ANY ($1) ORDER BY p.sku
        """,
        skus,
    )
    return {row["sku"]: Product(**row) for row in rows}


async def read_now(connection: Connection) -> datetime:
    """The time of the transaction, by the clock of the database."""
    return await connection.fetchval("SELECT now()")


_LIST = """
    SELECT sku FROM products
     WHERE sku > $1 AND ($3::text[] IS NULL OR category = ANY ($3)) AND ($4::boolean IS NULL OR is_active = $4)
     ORDER BY sku LIMIT $2
"""

# Every letter and digit of a SKU sorts before ~, so what begins with a text lies between it and the text with ~ behind.
# The words are quoted for tsquery and hold neither quotes nor backslashes, being what such characters separate.
# Materialized, because the planner would rather walk all SKUs in order and hope that a page of matches comes early.
_SEARCH = r"""
    WITH found AS MATERIALIZED (
        SELECT sku, category, is_active FROM products
         WHERE lower(sku) BETWEEN lower($5) AND lower($5) || '~'
            OR name_words @@ (
                SELECT string_agg('''' || word || ''':*', ' & ')::tsquery
                  FROM unnest(regexp_split_to_array(lower($5), '[\s!-/:-@\[-`{-~]+')) AS word WHERE word <> '')
    )
    SELECT sku FROM found
     WHERE sku > $1 AND ($3::text[] IS NULL OR category = ANY ($3)) AND ($4::boolean IS NULL OR is_active = $4)
     ORDER BY sku LIMIT $2
"""


def _no_product(sku: str) -> NotFound:
    return NotFound(f"There is no product {sku}.", code="product_not_found")
