"""What the product-catalog-service is asked and answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, PlainValidator, SkipValidation, StrictBool, StringConstraints, TypeAdapter
from pydantic_core import PydanticCustomError

from stockade.kit.shapes import Code, Name, Note, Price, Shape
from stockade.product_catalog.gtins import compute_check_digit, has_valid_check_digit, is_gtin_shaped, key_of

BATCH_MAX = 1_000
BARCODES_MAX = 20
ATTRIBUTES_MAX = 50
LOOKUP_MAX = 500

_AttributeText = Annotated[Note, Field(max_length=500)]
_attribute_text: TypeAdapter[str] = TypeAdapter(_AttributeText)


def _check_sku(sku: str) -> str:
    if sku.endswith("/history"):
        raise PydanticCustomError("sku_reserved", 'must not end in "/history", which is an address below a product')
    return sku


def _check_barcode(code: str) -> str:
    if is_gtin_shaped(code) and not has_valid_check_digit(code):
        expected = compute_check_digit(code[:-1])
        raise PydanticCustomError(
            "check_digit", "is as long as a GTIN, but its check digit would be {expected}", {"expected": expected}
        )
    return code


def _check_distinct(codes: list[str]) -> list[str]:
    if len({key_of(code) for code in codes}) != len(codes):
        raise PydanticCustomError("duplicate_barcode", "must not name the same barcode twice")
    return codes


def _check_attribute(value: Any) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("attribute_type", "must be a string, a number in a string, or true or false")
    return _attribute_text.validate_python(value)


Sku = Annotated[Code, AfterValidator(_check_sku)]
Tracking = Literal["none", "lot", "serial"]
Barcode = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,80}$"), AfterValidator(_check_barcode)]
"""Printable ASCII; what is all digits and as long as a GTIN must have its check digit."""
Barcodes = Annotated[list[Barcode], Field(max_length=BARCODES_MAX), AfterValidator(_check_distinct)]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,64}$")]
AttributeValue = Annotated[bool | str, PlainValidator(_check_attribute, json_schema_input_type=bool | _AttributeText)]
Attributes = Annotated[
    dict[AttributeName, AttributeValue],
    # Without the extra the schema would allow every value under a name that is none.
    Field(max_length=ATTRIBUTES_MAX, json_schema_extra={"additionalProperties": False}),
]


class NewProduct(Shape):
    sku: Sku
    name: Name
    description: Note | None = None
    unit: Code = "each"
    """A code of GET /units. Quantities of the product are counted in it, so it cannot change."""
    tracking: Tracking = "none"
    category: Code | None = None
    barcodes: Barcodes = Field(default=[])
    price: Price | None = None
    attributes: Attributes = Field(default={})
    is_active: StrictBool = True


def _left_out() -> Any:
    return None


class ProductChange(Shape):
    """What is given replaces what is; null empties description, category and price; what is left out stays."""

    name: Name = Field(default_factory=_left_out)
    description: Note | None = Field(default_factory=_left_out)
    unit: Code = Field(default_factory=_left_out)
    tracking: Tracking = Field(default_factory=_left_out)
    category: Code | None = Field(default_factory=_left_out)
    barcodes: Barcodes = Field(default_factory=_left_out)
    price: Price | None = Field(default_factory=_left_out)
    attributes: Attributes = Field(default_factory=_left_out)
    is_active: StrictBool = Field(default_factory=_left_out)


class Product(Shape):
    id: UUID
    sku: str
    name: str
    description: str | None
    unit: str
    tracking: Tracking
    category: str | None
    barcodes: list[str]
    price: Price | None
    attributes: dict[str, bool | str]
    is_active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class ProductBatch(Shape):
    # The items stay as they came: one that makes no sense must not fail the others.
    products: Annotated[list[SkipValidation[NewProduct]], Field(max_length=BATCH_MAX)]


class FieldProblem(Shape):
    pointer: str
    """A JSON pointer into the product."""
    code: str
    detail: str


class Written(Shape):
    status: Literal[200, 201]
    """201 for a new product; 200 for one that was changed, or that was so already."""
    sku: str
    id: UUID


class Rejected(Shape):
    status: Literal[422] = 422
    sku: str | None
    """Null when it could not be read."""
    errors: list[FieldProblem]


class BatchResult(Shape):
    results: list[Written | Rejected]
    """In the order of the request."""


class ProductEntry(Shape):
    """What other services need to know of a product."""

    id: UUID
    sku: str
    name: str
    unit: str
    tracking: Tracking
    is_active: bool


class ProductEntries(Shape):
    items: list[ProductEntry]


class Change(Shape):
    version: int
    """The version that the change made."""
    at: datetime
    actor: str
    changes: Mapping[str, Mapping[str, Any]]
    """By field, what it was (`from`, null for a new product) and what it became (`to`)."""


class NewCategory(Shape):
    code: Code
    name: Name
    parent: Code | None = None


class Category(Shape):
    code: str
    name: str
    parent: str | None
    depth: int
    """1 for a category without parent."""
    created_at: datetime


class Unit(Shape):
    code: str
    name: str
    recommendation: int
    """The UN/ECE recommendation that the code is of: 20 for units of measure, 21 for packages."""
    unece_code: str
