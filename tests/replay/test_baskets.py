"""Rows of the data set become sales, baskets and products, or are named with the reason why not."""

import csv
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from replay.baskets import Sale, gather_baskets, judge_sale
from replay.dataset import ProductRow, SaleRow
from replay.products import NAME_LENGTH_MAX, code_of, describe_product, is_fuel
from replay.rejections import Rejected, count_reasons, write_report
from stockade.product_catalog.shapes import NewProduct

FUELS = {25671: False, 202291: True}


def sale_row(**changes: Any) -> SaleRow:
    row: Any = {
        "store_id": 330,
        "basket_id": 31198570044,
        "product_id": 25671,
        "quantity": 2,
        "sales_value": 2.78,
        "transaction_timestamp": datetime.fromisoformat("2017-01-01T12:30:27"),
    }
    return row | changes


def product_row(**changes: Any) -> ProductRow:
    row: Any = {
        "product_id": 25671,
        "manufacturer_id": 2,
        "department": "GROCERY",
        "brand": "National",
        "product_category": "FRZN ICE",
        "product_type": "ICE - CRUSHED/CUBED",
        "package_size": "22 LB",
    }
    return row | changes


def sale(number: int, **changes: Any) -> Sale:
    judged = judge_sale(number, sale_row(**changes), FUELS)
    assert isinstance(judged, Sale), judged
    return judged


def test_a_sale_is_whole_pieces_at_the_price_of_one() -> None:
    line = sale(7)
    assert (line.row, line.store, line.sku, line.quantity) == (7, "STORE-330", "25671", 2)
    assert line.unit_price == Decimal("1.39")


def test_a_price_that_does_not_come_out_even_has_as_many_digits_as_the_server_takes() -> None:
    assert str(sale(1, quantity=3, sales_value=1.01).unit_price) == "0.336667"


def test_what_is_given_away_costs_nothing() -> None:
    assert sale(1, sales_value=0.0).unit_price == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity": 0}, "quantity_zero"),
        ({"quantity": -1}, "quantity_negative"),
        ({"sales_value": -0.01}, "value_senseless"),
        ({"sales_value": float("nan")}, "value_senseless"),
        ({"sales_value": float("inf")}, "value_senseless"),
        ({"product_id": 1}, "unknown_product"),
        ({"product_id": 202291, "quantity": 9095}, "fuel_by_volume"),
        ({"product_id": 202291, "quantity": 1}, "fuel_by_volume"),
        # The row says nothing about the product that a zero does not say about the row.
        ({"product_id": 1, "quantity": 0}, "quantity_zero"),
    ],
)
def test_a_senseless_row_is_rejected_with_its_number_and_reason(changes: dict[str, Any], reason: str) -> None:
    row = sale_row(**changes)
    assert judge_sale(12, row, FUELS) == Rejected("transactions.parquet", 12, reason, dict(row))


def test_baskets_come_in_the_order_of_time_with_their_lines_in_the_order_of_the_file() -> None:
    noon, morning = (datetime.fromisoformat(f"2017-01-01T{hour}:00:00") for hour in ("12", "08"))
    sales = [
        sale(1, basket_id=1, transaction_timestamp=noon),
        sale(2, basket_id=2, transaction_timestamp=morning),
        sale(3, basket_id=1, transaction_timestamp=noon, quantity=5),
    ]
    baskets = gather_baskets(sales)
    assert [(basket.id, [line.row for line in basket.sales]) for basket in baskets] == [(2, [2]), (1, [1, 3])]


def test_one_basket_number_in_two_stores_is_two_baskets() -> None:
    assert len(gather_baskets([sale(1, store_id=1), sale(2, store_id=2)])) == 2


def test_a_product_is_named_by_type_brand_and_size_and_filed_by_department() -> None:
    body = describe_product(product_row())
    assert body["name"] == "ICE - CRUSHED/CUBED, National, 22 LB"
    assert (body["sku"], body["category"]) == ("25671", "GROCERY")
    assert body["attributes"]["manufacturer"] == "2"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"department": None, "brand": None, "product_category": None, "product_type": None, "package_size": None},
        {"product_type": "X" * 300},
        {"department": "ELECT &PLUMBING"},
    ],
)
def test_the_catalogue_takes_every_description(changes: dict[str, Any]) -> None:
    product = NewProduct.model_validate(describe_product(product_row(**changes)))
    assert 0 < len(product.name) <= NAME_LENGTH_MAX


@pytest.mark.parametrize(
    ("department", "code"),
    [("DRUG GM", "DRUG-GM"), ("CNTRL/STORE SUP", "CNTRL/STORE-SUP"), ("ELECT &PLUMBING", "ELECT-PLUMBING")],
)
def test_a_department_becomes_a_code(department: str, code: str) -> None:
    assert code_of(department) == code


def test_fuel_is_known_by_department_or_type() -> None:
    assert is_fuel(product_row(department="FUEL"))
    assert is_fuel(product_row(department="MISCELLANEOUS", product_type="GASOLINE-REG UNLEADED"))
    assert not is_fuel(product_row(product_type=None))
    assert not is_fuel(product_row(product_type="RIGID GAS PERMEABLE"))


def test_the_report_has_a_line_for_every_rejected_row_in_the_order_of_the_file(tmp_path: Path) -> None:
    rejected = [
        Rejected("transactions.parquet", 9, "quantity_zero", dict(sale_row(quantity=0))),
        Rejected("transactions.parquet", 2, "quantity_zero", {"name": 'with a "quote", a comma\nand a line'}),
        Rejected("products.parquet", 5, "product_refused:unknown_unit", {"product_id": 5}),
        sale(4).reject("order_refused:insufficient_stock"),
    ]
    path = tmp_path / "report.csv"
    write_report(path, rejected)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["file"], line["row"]) for line in lines] == [
        ("products.parquet", "5"),
        ("transactions.parquet", "2"),
        ("transactions.parquet", "4"),
        ("transactions.parquet", "9"),
    ]
    assert json.loads(lines[1]["values"]) == {"name": 'with a "quote", a comma\nand a line'}
    assert json.loads(lines[2]["values"])["value"] == "2.78"
    assert count_reasons(rejected)["quantity_zero"] == 2
