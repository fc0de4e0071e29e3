"""Units of measure: built in, seeded by the migration."""

from stockade.kit.database import Connection
from stockade.kit.pages import Page
from stockade.product_catalog.shapes import Unit


async def list_units(connection: Connection) -> Page[Unit]:
    """All of them, by code: nobody can add one, so they fit on a page."""
    rows = await connection.fetch("SELECT code, name, recommendation, unece_code FROM units ORDER BY code")
    return Page(items=[Unit(**row) for row in rows], next=None)
