"""The choice of a warehouse."""

from decimal import Decimal

from stockade.order.shapes import Available
from stockade.order.sourcing import find_best

WANTED = {"A": Decimal(4), "B": Decimal(2)}


def at(warehouse: str, **available: str) -> list[Available]:
    return [Available(sku=sku, warehouse=warehouse, available=Decimal(text)) for sku, text in available.items()]


def test_the_one_that_fills_every_line_is_best():
    assert find_best(WANTED, at("X", A="1000", B="1") + at("Y", A="4", B="2")) == "Y"


def test_then_the_one_that_fills_more_lines_and_then_the_larger_share():
    assert find_best(WANTED, at("X", A="3", B="1") + at("Y", B="2")) == "Y"
    assert find_best(WANTED, at("X", A="1") + at("Y", A="3")) == "Y"


def test_among_equals_it_is_the_first_by_code():
    assert find_best(WANTED, at("Y", A="4", B="2") + at("X", A="9", B="9")) == "X"


def test_nothing_available_chooses_none():
    assert find_best(WANTED, at("X", A="0") + at("Y", C="5")) is None
