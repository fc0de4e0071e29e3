"""I1 in the database: no statement can leave a movement with entries that do not sum to zero, item by item."""

from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from stockade.kit.ids import uuid7
from tests.inventory.stocked import stock
from tests.world import World


@pytest.mark.parametrize(
    "quantities",
    [
        [("A-1", 5), ("A-1", -4)],
        [("A-1", 5), ("A-1", 5)],
        # One item cannot pay for another.
        [("A-1", 5), ("A-2", -5)],
    ],
)
async def test_entries_that_do_not_sum_to_zero_are_refused(world: World, quantities: list[tuple[str, int]]) -> None:
    await stock(world, "100", "A-1", "A-2")
    with pytest.raises(asyncpg.CheckViolationError, match="must sum to zero per item"):
        await insert_entries(world, *quantities)


async def test_entries_that_sum_to_zero_per_item_are_taken(world: World) -> None:
    await stock(world, "100", "A-1", "A-2")
    await insert_entries(world, ("A-1", 5), ("A-2", -3), ("A-1", -2), ("A-1", -3), ("A-2", 3))


async def insert_entries(world: World, *quantities: tuple[str, int]) -> None:
    """A movement with these entries, by SKU, as the service's own role could write it past all of its code."""
    connection = await world.connect("inventory")
    try:
        async with connection.transaction():
            movement = uuid7()
            await connection.execute(
                """
                INSERT INTO movements (id, type, actor, occurred_at, recorded_at) VALUES ($1, 'receipt', 'a test', now(), now())
                """,
                movement,
            )
            await _insert(connection, movement, quantities)
    finally:
        await connection.close()


async def _insert(connection: asyncpg.Connection, movement: UUID, quantities: tuple[tuple[str, int], ...]) -> None:
    await connection.execute(
        """
        INSERT INTO entries (movement_id, position, line, item_id, warehouse_id, location_id, lot_id, status, is_physical,
                             quantity, balance, occurred_at, recorded_at)
        SELECT $1, e.position, 1, i.id, l.warehouse_id, l.id, $2, 'sellable', true, e.quantity, 0, now(), now()
          FROM unnest($3::text[], $4::numeric[]) WITH ORDINALITY AS e (sku, quantity, position)
          JOIN items i ON i.sku = e.sku
          JOIN locations l ON l.code = 'STOCK'
        """,
        movement, UUID(int=0), [sku for sku, _ in quantities], [Decimal(quantity) for _, quantity in quantities],
    )  # fmt: skip
