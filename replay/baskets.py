"""Sales lines of the data set, judged one by one, and gathered into baskets that can be ordered."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from replay.dataset import SALES_FILE, SaleRow
from replay.products import sku_of
from replay.rejections import Rejected

_PRICE_STEP = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Sale:
    """A line of a basket that makes sense: whole pieces of a known product, and the price of one of them."""

    row: int
    store: str
    basket: int
    sku: str
    quantity: int
    value: Decimal
    at: datetime

    @property
    def unit_price(self) -> Decimal:
        return (self.value / self.quantity).quantize(_PRICE_STEP)

    def reject(self, reason: str) -> Rejected:
        """The line as one that made sense and still could not be replayed."""
        values = {"store": self.store, "basket": self.basket, "sku": self.sku, "quantity": self.quantity}
        return Rejected(SALES_FILE, self.row, reason, values | {"value": self.value, "at": self.at})


@dataclass(frozen=True, slots=True)
class Basket:
    """What one household bought at once in one store."""

    id: int
    store: str
    at: datetime
    sales: tuple[Sale, ...]


def judge_sale(number: int, row: SaleRow, fuels: Mapping[int, bool]) -> Sale | Rejected:
    """The line, or why it makes no sense. `fuels` has every known product, and whether its sales are measured by volume."""
    if reason := _find_fault(row, fuels):
        return Rejected(SALES_FILE, number, reason, dict(row))
    return Sale(
        row=number,
        store=f"STORE-{row['store_id']}",
        basket=row["basket_id"],
        sku=sku_of(row["product_id"]),
        quantity=row["quantity"],
        # The shortest decimal that means the same double: what the till printed.
        value=Decimal(repr(row["sales_value"])),
        at=row["transaction_timestamp"],
    )


def gather_baskets(sales: Iterable[Sale]) -> list[Basket]:
    """The baskets in the order of their time; the lines of each in the order of the file."""
    lines: dict[tuple[int, str], list[Sale]] = {}
    for sale in sales:
        lines.setdefault((sale.basket, sale.store), []).append(sale)
    baskets = [Basket(id, store, min(sale.at for sale in own), tuple(own)) for (id, store), own in lines.items()]
    return sorted(baskets, key=lambda basket: (basket.at, basket.id, basket.store))


def _find_fault(row: SaleRow, fuels: Mapping[int, bool]) -> str | None:
    if row["quantity"] == 0:
        return "quantity_zero"
    if row["quantity"] < 0:
        return "quantity_negative"
    if not math.isfinite(row["sales_value"]) or row["sales_value"] < 0:
        return "value_senseless"
    if row["product_id"] not in fuels:
        return "unknown_product"
    return "fuel_by_volume" if fuels[row["product_id"]] else None
