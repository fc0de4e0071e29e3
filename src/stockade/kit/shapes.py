"""The types of which requests and answers are made: exact decimals, bounded text, strict objects.

Quantities and money travel as strings with an exact schema, because a JSON number is a float in most clients. They are
`Decimal` in Python and NUMERIC(18,6) in PostgreSQL: at most 12 digits before the point and 6 after it.
"""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

_UNSIGNED = r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?"
_POSITIVE_PATTERN = rf"^(?!0(\.0+)?$){_UNSIGNED}$"
_UNSIGNED_PATTERN = rf"^{_UNSIGNED}$"
_SIGNED_PATTERN = rf"^-?{_UNSIGNED}$"


class Shape(BaseModel):
    """Base of every request and answer: unknown members are refused, so that a misspelt field is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def plain(value: Decimal) -> str:
    """A decimal without exponent and without trailing zeros: `10`, `0.5`."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parse(pattern: str, said: str) -> Any:
    compiled = re.compile(pattern)

    def parse(value: Any) -> Any:
        if isinstance(value, Decimal):
            return value
        if not isinstance(value, str):
            raise PydanticCustomError("decimal_string", 'must be a decimal number in a string, such as "10" or "2.5"')
        if not compiled.fullmatch(value):  # `match` would let a final line break through.
            raise PydanticCustomError("decimal_range", "{said}", {"said": said})
        return Decimal(value)

    return BeforeValidator(parse)


def _decimal(pattern: str, said: str) -> tuple[Any, ...]:
    schema = {"type": "string", "pattern": pattern, "examples": ["10", "2.5"]}
    return _parse(pattern, said), PlainSerializer(plain, return_type=str), WithJsonSchema(schema)


_POSITIVE = _decimal(
    _POSITIVE_PATTERN, "must be greater than zero, with at most 12 digits before and 6 after the point"
)
_AT_LEAST_ZERO = _decimal(
    _UNSIGNED_PATTERN, "must not be negative, with at most 12 digits before and 6 after the point"
)
_SIGNED = _decimal(_SIGNED_PATTERN, "must have at most 12 digits before and 6 after the point")

PositiveQuantity = Annotated[Decimal, *_POSITIVE]
"""What is moved, ordered or reserved, in the item's unit."""
Quantity = Annotated[Decimal, *_AT_LEAST_ZERO]
SignedQuantity = Annotated[Decimal, *_SIGNED]
Price = Annotated[Decimal, *_AT_LEAST_ZERO]
"""Money per unit, in the company's currency."""


def _check_whole(value: Any) -> Any:
    # JSON has one kind of number, so 1.0 is a whole one and may pass; a text or a truth value is none.
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "must be a whole number")
    return value


WHOLE = BeforeValidator(_check_whole)
"""For a number in a body, after its bounds: `Annotated[int, Field(ge=1), WHOLE]`."""


def _has_no_control(text: str) -> str:
    if any(ord(character) < 32 and character not in "\n\t" for character in text):
        raise PydanticCustomError("control_character", "must not contain control characters")
    return text


_PRINTABLE = AfterValidator(_has_no_control), Field(json_schema_extra={"pattern": r"^[^\x00-\x08\x0b-\x1f]*$"})

Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
"""A code that people type and print: SKU, warehouse, location, lot. Letters, digits and . _ / - ; at most 64."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), *_PRINTABLE]
Note = Annotated[str, StringConstraints(min_length=1, max_length=2_000), *_PRINTABLE]
Email = Annotated[
    str,
    # Spelt out because engines differ in what white space is.
    StringConstraints(
        strip_whitespace=True, max_length=254, pattern=r"^[^@\x00-\x20\x7f-\xa0]{1,64}@[^@\x00-\x20\x7f-\xa0]{1,189}$"
    ),
]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=128), *_PRINTABLE]
"""A document of the caller: an order number, a delivery note."""


def check_instant(value: datetime | None) -> datetime | None:
    """Refuse years that PostgreSQL or a client cannot hold."""
    if value is not None and not 1970 <= value.year <= 2200:
        raise PydanticCustomError("instant_range", "must lie between 1970 and 2200")
    return value


def _parse_dated(pattern: str, said: str) -> BeforeValidator:
    """Refuse what is no text that begins with a day: as a number it would be taken for seconds since 1970."""
    compiled = re.compile(pattern)

    def check(value: Any) -> Any:
        if isinstance(value, date) or (isinstance(value, str) and compiled.fullmatch(value)):
            return value
        raise PydanticCustomError("dated_text", "{said}", {"said": said})

    return BeforeValidator(check)


_DAY_PATTERN = r"\d{4}-\d{2}-\d{2}"

Day = Annotated[date, _parse_dated(_DAY_PATTERN, "must be a day such as 2030-01-31, in a string")]
BoundedInstant = Annotated[
    AwareDatetime,
    _parse_dated(_DAY_PATTERN + ".+", "must be a time with its offset such as 2030-01-31T08:00:00Z, in a string"),
    AfterValidator(check_instant),
]
"""An instant with offset; stored in UTC."""
