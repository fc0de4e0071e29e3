"""Categories: a tree by code. Parents exist before their children and never change, so there is no cycle."""

from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, Invalid
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.product_catalog.shapes import Category, NewCategory

DEPTH_MAX = 8


async def create_category(connection: Connection, *, actor: Actor, category: NewCategory) -> Category:
    """A new category. Raises Conflict `category_taken`, Invalid `unknown_parent` and `category_too_deep`."""
    depth = 1 + (0 if category.parent is None else await _read_depth(connection, category.parent))
    if depth > DEPTH_MAX:
        raise Invalid.field("/parent", "category_too_deep", f"Categories are nested at most {DEPTH_MAX} deep.")
    row = await connection.fetchrow(
        """
        INSERT INTO categories (code, name, parent, depth, created_by) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (code) DO NOTHING RETURNING code, name, parent, depth, created_at
        """,
        category.code, category.name, category.parent, depth, actor.responsible,
    )  # fmt: skip
    if row is None:
        raise Conflict(f"There is a category {category.code} already.", code="category_taken")
    return Category(**row)


async def list_categories(connection: Connection, *, limit: int, cursor: str | None) -> Page[Category]:
    """Categories by code."""
    (after,) = decode_cursor(cursor, str) or ("",)
    rows = await connection.fetch(
        "SELECT code, name, parent, depth, created_at FROM categories WHERE code > $1 ORDER BY code LIMIT $2",
        after,
        limit + 1,
    )
    page, following = paginate(rows, limit, lambda row: (row["code"],))
    return Page(items=[Category(**row) for row in page], next=following)


async def list_codes_below(connection: Connection, code: str) -> list[str]:
    """A category and all that are below it."""
    rows = await connection.fetch(
        """
        WITH RECURSIVE below AS (
            SELECT code FROM categories WHERE code = $1
            UNION ALL
            SELECT c.code FROM categories c JOIN below b ON c.parent = b.code
        ) SELECT code FROM below
        """,
        code,
    )
    return [row["code"] for row in rows]


async def _read_depth(connection: Connection, code: str) -> int:
    depth = await connection.fetchval("SELECT depth FROM categories WHERE code = $1", code)
    if depth is None:
        raise Invalid.field("/parent", "unknown_parent", f"There is no category {code}.")
    return depth
