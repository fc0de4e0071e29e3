"""Quantities, prices and texts: one exact form in, the same out, and a schema that says the same as the code."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stockade.kit.shapes import (
    BoundedInstant,
    Code,
    Name,
    Note,
    PositiveQuantity,
    Price,
    Quantity,
    Reference,
    SignedQuantity,
    plain,
)

BOUNDED = settings(derandomize=True, max_examples=500, deadline=None, database=None)
KINDS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind)
    for name, kind in {
        "positive": PositiveQuantity, "quantity": Quantity, "signed": SignedQuantity, "price": Price,
    }.items()
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", KINDS)

EXACT = st.builds(
    lambda whole, fraction, places: str(whole) + (f".{fraction:06d}"[: places + 1] if places else ""),
    st.integers(0, 10**12 - 1) | st.integers(0, 20),
    st.integers(0, 10**6 - 1),
    st.integers(0, 6),
)
NEARLY = st.text("0123456789.-+eE \n٣Ⅷ_x,", max_size=16) | st.decimals().map(str) | st.floats().map(str)


def accepts(kind: str, value: Any) -> bool:
    try:
        KINDS[kind].validate_python(value)
    except ValidationError:
        return False
    return True


@kinds
@BOUNDED
@given(text=EXACT)
def test_every_accepted_text_comes_back_with_the_same_value(kind: str, text: str):
    if kind == "positive" and Decimal(text) == 0:
        return
    adapter = KINDS[kind]
    value = adapter.validate_json(f'"{text}"')
    assert value == Decimal(text)
    out = adapter.dump_python(value)
    assert Decimal(out) == Decimal(text)
    assert adapter.dump_json(value).decode() == f'"{out}"'
    assert accepts(kind, out)
    assert "E" not in out.upper()
    assert out == (text.rstrip("0").rstrip(".") if "." in text else text)


@BOUNDED
@given(text=EXACT)
def test_a_sign_is_kept_where_signs_are_allowed(text: str):
    value = KINDS["signed"].validate_python(f"-{text}")
    assert value == -Decimal(text)
    assert Decimal(KINDS["signed"].dump_python(value)) == value
    for kind in ("positive", "quantity", "price"):
        assert not accepts(kind, f"-{text}")


@kinds
@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1 ", " 1", "1\n", "\n1", "+1", "01", "00", "0x1", "1e3", "1E-2", "1_000", "1,5", "1.", ".5", "-.5",
        "--1", "1.2.3",
        "0.0000001", "1.1234567", "1234567890123", "NaN", "sNaN", "Infinity", "-Infinity", "inf", "٣", "\uff11", "Ⅷ",
        "½", "²", "1\u0000", "1.٣", "\u200b1", "1\u00a0", "null", "true", "-",
    ],
)  # fmt: skip
def test_it_refuses_whatever_is_not_the_one_form(kind: str, text: str):
    assert not accepts(kind, text)


@kinds
@pytest.mark.parametrize("value", [1, 1.5, 0, True, None, [], {}, ["1"], float("nan"), 10**30, b"1"])
def test_it_refuses_numbers_and_everything_that_is_no_text(kind: str, value: Any):
    with pytest.raises(ValidationError) as caught:
        KINDS[kind].validate_python(value)
    assert caught.value.errors()[0]["type"] == "decimal_string"


@pytest.mark.parametrize("zero", ["0", "0.0", "0.000000"])
def test_zero_is_not_greater_than_zero(zero: str):
    assert not accepts("positive", zero)
    assert accepts("quantity", zero)


@kinds
@BOUNDED
@given(text=NEARLY | EXACT)
@example(text="1\n")
@example(text="0.0\n")
def test_the_schema_says_the_same_as_the_code(kind: str, text: str):
    schema = KINDS[kind].json_schema()
    assert schema["type"] == "string"
    # `$` of ECMA-262, which JSON Schema means, is the very end; Python's would also match before a last line break.
    pattern = schema["pattern"].removesuffix("$") + r"\Z"
    assert (re.search(pattern, text) is not None) == accepts(kind, text), text


@kinds
def test_the_examples_of_the_schema_are_good(kind: str):
    assert all(accepts(kind, text) for text in KINDS[kind].json_schema()["examples"])


@BOUNDED
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12 - 1, places=6))
def test_plain_says_exactly_the_number(value: Decimal):
    assert Decimal(plain(value)) == value
    assert re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", plain(value))


@pytest.mark.parametrize(
    ("value", "text"), [("1E+3", "1000"), ("100", "100"), ("1.500", "1.5"), ("0E-6", "0"), ("1E-6", "0.000001")]
)
def test_plain_has_no_exponent_and_no_needless_zero(value: str, text: str):
    assert plain(Decimal(value)) == text


@pytest.mark.parametrize("text", ["A", "A-1", "a/b.c_d-e", "0", "9" * 64])
def test_a_code_is_what_people_type_and_print(text: str):
    assert TypeAdapter(Code).validate_python(text) == text


@pytest.mark.parametrize(
    "text", ["", "-A", ".A", "/A", "A B", "A\n", "@A", "Ä", "A" * 65, "A\0", "a%b", "a?b", 7, None]
)
def test_a_code_is_nothing_else(text: Any):
    with pytest.raises(ValidationError):
        TypeAdapter(Code).validate_python(text)


@pytest.mark.parametrize("kind", [Name, Note, Reference])
@pytest.mark.parametrize("text", ["", "a\0b", "a\x1bb", "a\x07", "x" * 2_001, "\ud800"])
def test_texts_are_bounded_and_printable(kind: Any, text: str):
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize(
    "text", ["1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "2024-01-01T00:00:00", "yesterday", "9999-12-31T23:59:59Z"]
)
def test_an_instant_has_an_offset_and_bounds(text: str):
    with pytest.raises(ValidationError):
        TypeAdapter(BoundedInstant).validate_json(f'"{text}"')


@pytest.mark.parametrize("text", ["1970-01-01T00:00:00Z", "2024-02-29T12:00:00+05:45", "2200-12-31T23:59:59.999999Z"])
def test_an_instant_with_any_offset_is_read(text: str):
    assert TypeAdapter(BoundedInstant).validate_json(f'"{text}"').tzinfo is not None
