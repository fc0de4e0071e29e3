"""From which warehouse an order is served when it names none."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from stockade.kit.context import Context
from stockade.kit.errors import Invalid
from stockade.order.calls import list_warehouses, read_stock
from stockade.order.shapes import Available, NewOrderLine


async def choose_warehouse(context: Context, lines: Sequence[NewOrderLine]) -> str:
    """The warehouse that can fill every line now, else the one with most, else the first. Raises Invalid `no_warehouse`."""
    inventory = context.clients["inventory-service"]
    wanted: dict[str, Decimal] = {}
    for line in lines:
        wanted[line.sku] = wanted.get(line.sku, Decimal(0)) + line.quantity
    best = find_best(wanted, await read_stock(inventory, sorted(wanted)))
    if best is not None:
        return best
    for code in await list_warehouses(inventory):
        return code
    raise Invalid.field("/warehouse", "no_warehouse", "There is no warehouse yet that could serve an order.")


def find_best(wanted: Mapping[str, Decimal], stock: Sequence[Available]) -> str | None:
    """The warehouse that fills most lines, then the largest share of each; the first by code among equals.

    Quantities of different SKUs have different units, so their shares of what is wanted are added, not the quantities.
    None when no warehouse has any of it.
    """
    here: dict[str, dict[str, Decimal]] = {}
    for item in stock:
        if item.sku in wanted and item.available > 0:
            at = here.setdefault(item.warehouse, {})
            at[item.sku] = at.get(item.sku, Decimal(0)) + item.available

    def rank(warehouse: str) -> tuple[int, Decimal, str]:
        shares = [min(Decimal(1), available / wanted[sku]) for sku, available in here[warehouse].items()]
        return -sum(share == 1 for share in shares), -sum(shares, Decimal(0)), warehouse

    return min(here, key=rank, default=None)
