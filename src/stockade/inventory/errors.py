"""Refusals of the inventory-service, by name."""

from collections.abc import Sequence
from typing import Any

from stockade.kit.errors import Conflict, FieldError, Invalid
from stockade.kit.shapes import plain


class InsufficientStock(Conflict):
    """Not enough is available; says how much is, line by line: `{"sku", "warehouse", "requested", "available"}`."""

    default_code = "insufficient_stock"

    def __init__(self, lines: Sequence[dict[str, Any]]) -> None:
        first = lines[0]
        more = f" ({len(lines) - 1} more lines are short)" if len(lines) > 1 else ""
        super().__init__(
            f"{first['sku']} in {first['warehouse']}: {plain(first['requested'])} wanted, "
            f"{plain(first['available'])} available{more}.",
            lines=[
                line | {"requested": plain(line["requested"]), "available": plain(line["available"])} for line in lines
            ],
        )


class UnknownNames(Invalid):
    """SKUs, warehouses, locations or lots that do not exist. `skus` are those that the catalog may know."""

    def __init__(self, errors: Sequence[FieldError], skus: Sequence[str]) -> None:
        first = errors[0]
        super().__init__(first["detail"], code=first["code"], errors=errors)
        self.skus = list(skus)
