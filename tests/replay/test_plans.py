"""Opening stock and returns: drawn by chance, and the same every time; and the books that are kept of them."""

from datetime import datetime
from decimal import Decimal

from replay.baskets import Basket, Sale
from replay.books import Books, Difference, find_differences, subtract
from replay.plans import OpeningLine, ShippedLine, choose_returns, plan_opening

AT = datetime.fromisoformat("2017-01-01T12:30:27")


def basket(number: int, *quantities: int, store: str = "STORE-1") -> Basket:
    """A basket of SKUs 0, 1, … at 10 apiece."""
    sales = tuple(
        Sale(
            row=place,
            store=store,
            basket=number,
            sku=str(place),
            quantity=quantity,
            value=Decimal(10 * quantity),
            at=AT,
        )
        for place, quantity in enumerate(quantities)
    )
    return Basket(number, store, AT, sales)


def ship_all(one: Basket) -> list[ShippedLine]:
    return [ShippedLine(line, sale.sku, sale.quantity, sale.unit_price) for line, sale in enumerate(one.sales, start=1)]


def plan(baskets: list[Basket]) -> dict[tuple[str, str], OpeningLine]:
    return {(line.store, line.sku): line for line in plan_opening(baskets, seed=1)}


def test_a_store_has_a_bit_more_than_its_own_baskets_need_at_less_than_their_price() -> None:
    planned = plan([basket(1, 3), basket(2, 5), basket(3, 40, store="STORE-2")])
    assert {place: line.quantity for place, line in planned.items()} == {("STORE-1", "0"): 9, ("STORE-2", "0"): 44}
    assert planned["STORE-1", "0"].unit_cost == Decimal("7.2")


def test_about_one_in_fifty_is_short_of_what_will_be_sold() -> None:
    lines = plan_opening([basket(1, *[8] * 5_000)], seed=1)
    short = [line for line in lines if line.is_short]
    assert 60 < len(short) < 140
    assert {line.quantity for line in short} == {6}
    assert {line.quantity for line in lines if not line.is_short} == {9}


def test_stock_that_is_too_little_is_never_negative() -> None:
    short = [line.quantity for line in plan_opening([basket(1, *[1] * 5_000)], seed=1) if line.is_short]
    assert set(short) == {0}


def test_the_same_seed_plans_the_same_stock_whatever_the_order_of_the_baskets() -> None:
    baskets = [basket(number, *range(1, 101), store=f"STORE-{number % 7}") for number in range(70)]
    assert plan_opening(baskets, seed=5) == plan_opening(reversed(baskets), seed=5)
    assert plan_opening(baskets, seed=5) != plan_opening(baskets, seed=6)


def test_about_one_in_fifty_lines_comes_back_and_never_more_than_was_shipped() -> None:
    baskets = [basket(number, *[4] * 50) for number in range(200)]
    returned = [line for one in baskets for line in choose_returns(one, ship_all(one), seed=1)]
    assert 140 < len(returned) < 260
    assert {line.quantity for line in returned} == {1, 2, 3, 4}
    assert {line.disposition for line in returned} == {"restock", "quality_hold", "damaged"}


def test_what_was_not_shipped_does_not_come_back_and_changes_nothing_else() -> None:
    baskets = [basket(number, *[4] * 50) for number in range(50)]
    for one in baskets:
        complete = choose_returns(one, ship_all(one), seed=1)
        partial = choose_returns(one, ship_all(one)[10:], seed=1)
        assert partial == [line for line in complete if line.line > 10]


def test_the_books_expect_what_came_in_less_what_went_out() -> None:
    books = Books()
    books.opening.add(("S", "a"), 10, Decimal("2"))
    books.shipped.add(("S", "a"), 4, Decimal("3.5"))
    books.shipped.add(("S", "a"), 1, Decimal("3.5"))
    books.returned.add(("S", "a"), 2, Decimal("3.5"))
    books.opening.add(("S", "b"), 1, Decimal("1"))
    assert books.expected() == {("S", "a"): 7, ("S", "b"): 1}
    assert (books.opening.value, books.shipped.value, books.returned.total) == (21, Decimal("17.5"), 2)


def test_stock_of_before_is_not_counted_as_gained() -> None:
    after, before = {("S", "a"): Decimal(7), ("S", "b"): Decimal(1)}, {("S", "a"): Decimal(5), ("S", "c"): Decimal(2)}
    assert subtract(after, before) == {("S", "a"): 2, ("S", "b"): 1, ("S", "c"): -2}


def test_a_difference_is_found_even_when_the_totals_agree() -> None:
    expected = {("S", "a"): Decimal(1), ("S", "b"): Decimal(2), ("S", "c"): Decimal(0)}
    found = {("S", "a"): Decimal(2), ("S", "b"): Decimal(1)}
    assert find_differences(expected, found) == [
        Difference("S", "a", Decimal(1), Decimal(2)),
        Difference("S", "b", Decimal(2), Decimal(1)),
    ]
    assert find_differences(expected, expected) == []


def test_stock_where_nothing_was_expected_is_a_difference() -> None:
    assert find_differences({}, {("S", "a"): Decimal(1)}) == [Difference("S", "a", Decimal(0), Decimal(1))]
