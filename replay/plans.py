"""What the data set does not say, drawn by seeded chance: what each store had at first, and which goods come back."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from replay.baskets import Basket

Disposition = Literal["restock", "quality_hold", "damaged"]

SHORT_SHARE = 0.02
"""Of the SKUs of a store, how many get a bit less than the days will sell, so that orders are refused."""
RETURN_SHARE = 0.02
"""Of the shipped lines, how many come back, in whole or in part."""

_COST_SHARE = Decimal("0.72")
_COST_STEP = Decimal("0.000001")
_DISPOSITIONS: Sequence[Disposition] = ("restock", "restock", "restock", "quality_hold", "damaged")


@dataclass(frozen=True, slots=True)
class OpeningLine:
    """What a store has of a SKU before the first day; nothing where a short one sold a single piece."""

    store: str
    sku: str
    quantity: int
    unit_cost: Decimal
    is_short: bool


@dataclass(frozen=True, slots=True)
class ShippedLine:
    line: int
    sku: str
    quantity: int
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class ReturnLine:
    line: int
    sku: str
    quantity: int
    disposition: Disposition


def plan_opening(baskets: Iterable[Basket], *, seed: int) -> list[OpeningLine]:
    """By store and SKU, what the baskets will sell and a tenth more, at least one piece; or, for some, a quarter less."""
    sold: dict[tuple[str, str], tuple[int, Decimal]] = {}
    for basket in baskets:
        for sale in basket.sales:
            quantity, value = sold.get((sale.store, sale.sku), (0, Decimal(0)))
            sold[sale.store, sale.sku] = quantity + sale.quantity, value + sale.value
    chance = random.Random(f"opening {seed}")
    lines: list[OpeningLine] = []
    for (store, sku), (quantity, value) in sorted(sold.items()):
        is_short = chance.random() < SHORT_SHARE
        stocked = quantity - max(1, quantity // 4) if is_short else quantity + max(1, quantity // 10)
        unit_cost = (value / quantity * _COST_SHARE).quantize(_COST_STEP)
        lines.append(OpeningLine(store, sku, stocked, unit_cost, is_short))
    return lines


def choose_returns(basket: Basket, shipped: Sequence[ShippedLine], *, seed: int) -> list[ReturnLine]:
    """Which of the shipped lines of a basket come back; the same ones whatever the order of the baskets."""
    chance = random.Random(f"returns {seed} {basket.id} {basket.store}")
    pieces = {each.line: each for each in shipped}
    lines: list[ReturnLine] = []
    for place in range(1, len(basket.sales) + 1):
        # Drawn for every line of the basket, so that one which was not shipped changes nothing for the others.
        luck, share, disposition = chance.random(), chance.random(), chance.choice(_DISPOSITIONS)
        if luck < RETURN_SHARE and (each := pieces.get(place)):
            lines.append(ReturnLine(place, each.sku, 1 + int(share * each.quantity), disposition))
    return lines
