"""The replay's own books, kept from the answers of the API, against which the stock of the server is compared."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

Place = tuple[str, str]
"""A store and a SKU."""

Units = Mapping[Place, Decimal]


@dataclass(frozen=True)
class Difference:
    """A SKU of a store whose stock is not what came in and went out."""

    store: str
    sku: str
    expected: Decimal
    found: Decimal


@dataclass
class Flow:
    """Units by store and SKU, and their value in money."""

    units: Counter[Place] = field(default_factory=Counter[Place])
    value: Decimal = Decimal(0)

    def add(self, place: Place, quantity: int, unit_value: Decimal) -> None:
        self.units[place] += quantity
        self.value += quantity * unit_value

    @property
    def total(self) -> int:
        return self.units.total()


@dataclass
class Books:
    """Opening stock at cost; shipments and returns at the price of the sale."""

    opening: Flow = field(default_factory=Flow)
    shipped: Flow = field(default_factory=Flow)
    returned: Flow = field(default_factory=Flow)

    def expected(self) -> dict[Place, Decimal]:
        """What each place must have more than before the replay: opening + returned - shipped."""
        places = self.opening.units.keys() | self.shipped.units.keys() | self.returned.units.keys()
        return {
            place: Decimal(self.opening.units[place] + self.returned.units[place] - self.shipped.units[place])
            for place in places
        }


def subtract(after: Units, before: Units) -> dict[Place, Decimal]:
    """What each place gained; a place that one of the two does not name had nothing then."""
    return {
        place: after.get(place, Decimal(0)) - before.get(place, Decimal(0)) for place in after.keys() | before.keys()
    }


def find_differences(expected: Units, found: Units) -> list[Difference]:
    """Every place where the two do not agree, by store and SKU."""
    return [
        Difference(*place, expected.get(place, Decimal(0)), found.get(place, Decimal(0)))
        for place in sorted(expected.keys() | found.keys())
        if expected.get(place, Decimal(0)) != found.get(place, Decimal(0))
    ]
