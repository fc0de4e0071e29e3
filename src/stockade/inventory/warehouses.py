"""Warehouses and their locations."""

from uuid import UUID

import asyncpg

from stockade.inventory.shapes import Location, Warehouse
from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, NotFound
from stockade.kit.etags import check_version
from stockade.kit.events import Event, publish
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate

DEFAULT_LOCATION = "STOCK"
"""Where goods are when nobody says where."""
VIRTUAL = ("supplier", "customer", "adjustment", "production", "scrap", "transit")
"""The outside world and the ways in between, a location of each kind in every warehouse, so that no row is shared."""


async def create_warehouse(connection: Connection, *, actor: Actor, code: str, name: str) -> Warehouse:
    """A new warehouse with its default location and its virtual ones. Raises Conflict `code_taken`."""
    try:
        row = await connection.fetchrow(
            "INSERT INTO warehouses (id, code, name) VALUES ($1, $2, $3) RETURNING id, code, name, version, created_at",
            uuid7(), code, name,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict(f"There is a warehouse {code} already.", code="code_taken") from error
    assert row is not None, "RETURNING gives the row"
    codes = [DEFAULT_LOCATION, *(f"@{kind}" for kind in VIRTUAL)]
    await connection.execute(
        """
        INSERT INTO locations (id, warehouse_id, code, kind)
        SELECT id, $2, code, kind FROM unnest($1::uuid[], $3::text[], $4::text[]) AS l (id, code, kind)
        """,
        [uuid7() for _ in codes], row["id"], codes, ["physical", *VIRTUAL],
    )  # fmt: skip
    await publish(
        connection, Event("warehouse.created", str(row["id"]), {"code": code, "name": name, "actor": actor.responsible})
    )
    return Warehouse(**row)


async def get_warehouse(connection: Connection, *, code: str) -> Warehouse:
    row = await connection.fetchrow("SELECT id, code, name, version, created_at FROM warehouses WHERE code = $1", code)
    if row is None:
        raise NotFound(f"There is no warehouse {code}.", code="warehouse_not_found")
    return Warehouse(**row)


async def list_warehouses(connection: Connection, *, limit: int, cursor: str | None) -> Page[Warehouse]:
    """Warehouses by code."""
    (after,) = decode_cursor(cursor, str) or ("",)
    rows = await connection.fetch(
        "SELECT id, code, name, version, created_at FROM warehouses WHERE code > $1 ORDER BY code LIMIT $2",
        after,
        limit + 1,
    )
    page, following = paginate(rows, limit, lambda row: (row["code"],))
    return Page(items=[Warehouse(**row) for row in page], next=following)


async def change_warehouse(connection: Connection, *, actor: Actor, code: str, name: str, if_match: str) -> Warehouse:
    """Rename a warehouse that nobody changed meanwhile."""
    version = await connection.fetchval("SELECT version FROM warehouses WHERE code = $1 FOR UPDATE", code)
    if version is None:
        raise NotFound(f"There is no warehouse {code}.", code="warehouse_not_found")
    check_version(if_match, version)
    row = await connection.fetchrow(
        "UPDATE warehouses SET name = $2, version = version + 1 WHERE code = $1 RETURNING id, code, name, version, created_at",
        code, name,
    )  # fmt: skip
    assert row is not None, "the row is locked"
    await publish(
        connection, Event("warehouse.changed", str(row["id"]), {"code": code, "name": name, "actor": actor.responsible})
    )
    return Warehouse(**row)


async def create_location(connection: Connection, *, actor: Actor, warehouse: str, code: str) -> Location:
    """A new physical location. Raises Conflict `code_taken`, NotFound `warehouse_not_found`."""
    home = await get_warehouse(connection, code=warehouse)
    identifier = uuid7()
    try:
        await connection.execute(
            "INSERT INTO locations (id, warehouse_id, code, kind) VALUES ($1, $2, $3, 'physical')",
            identifier,
            home.id,
            code,
        )
    except asyncpg.UniqueViolationError as error:
        raise Conflict(f"There is a location {code} in {warehouse} already.", code="code_taken") from error
    await publish(
        connection,
        Event("location.created", str(identifier), {"warehouse": warehouse, "code": code, "actor": actor.responsible}),
    )
    return Location(id=identifier, warehouse=warehouse, code=code, kind="physical")


async def list_locations(
    connection: Connection, *, warehouse: str | None, limit: int, cursor: str | None
) -> Page[Location]:
    """Physical locations by warehouse and code."""
    after = decode_cursor(cursor, str, str) or ("", "")
    rows = await connection.fetch(
        """
        SELECT l.id, w.code AS warehouse, l.code, l.kind
          FROM locations l JOIN warehouses w ON w.id = l.warehouse_id
         WHERE l.kind = 'physical' AND ($1::text IS NULL OR w.code = $1) AND (w.code, l.code) > ($2, $3)
         ORDER BY w.code, l.code LIMIT $4
        """,
        warehouse, *after, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["warehouse"], row["code"]))
    return Page(items=[Location(**row) for row in page], next=following)


async def find_locations(
    connection: Connection, *, warehouses: list[UUID], codes: list[str]
) -> dict[tuple[UUID, str], UUID]:
    """Ids by warehouse and code: the named ones, the default ones and every virtual one."""
    rows = await connection.fetch(
        """
        SELECT id, warehouse_id, code FROM locations
         WHERE warehouse_id = ANY ($1::uuid[]) AND (kind <> 'physical' OR code = ANY ($2::text[]))
        """,
        warehouses, [DEFAULT_LOCATION, *codes],
    )  # fmt: skip
    return {(row["warehouse_id"], row["code"]): row["id"] for row in rows}
