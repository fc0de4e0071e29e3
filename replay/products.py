"""Products of the data set as the catalogue takes them."""

import re
from typing import Any

from replay.dataset import ProductRow

NAME_LENGTH_MAX = 200
CODE_LENGTH_MAX = 64


def describe_product(row: ProductRow) -> dict[str, Any]:
    """The body of a product: its name made of type, brand and size, its category the department."""
    attributes = {
        "brand": row["brand"],
        "manufacturer": str(row["manufacturer_id"]),
        "product category": row["product_category"],
        "package size": row["package_size"],
    }
    body: dict[str, Any] = {
        "sku": sku_of(row["product_id"]),
        "name": _name_product(row),
        "attributes": {name: value for name, value in attributes.items() if value},
    }
    if row["department"]:
        body["category"] = code_of(row["department"])
    return body


def sku_of(product_id: int) -> str:
    return str(product_id)


def code_of(department: str) -> str:
    """The category code of a department: `DRUG GM` is DRUG-GM, `ELECT &PLUMBING` is ELECT-PLUMBING."""
    return re.sub(r"[^A-Za-z0-9._/]+", "-", department).strip("-._/")[:CODE_LENGTH_MAX]


def is_fuel(row: ProductRow) -> bool:
    """Whether its sales are counted by volume, in a unit that the data set does not name, instead of in pieces."""
    return row["department"] == "FUEL" or (row["product_type"] or "").startswith("GASOLINE")


def _name_product(row: ProductRow) -> str:
    kind = row["product_type"] or row["product_category"] or f"Product {row['product_id']}"
    return ", ".join(part for part in (kind, row["brand"], row["package_size"]) if part)[:NAME_LENGTH_MAX]
