"""The statistics of the table: quantiles, spread, paired ratios, and what a row is called for them."""

import pytest

from bench.results import Pair, Row, Sample, Target, quantile, spread

RATIO = Target("P1", "work", "/s", reference="pgbench", must=2, goal=4)
TIME = Target("P13", "work", "s", at_least=False, must=10, goal=5)


def row(target: Target, *pairs: tuple[float, float | None]) -> Row:
    return Row(target, [Pair(Sample(ours), None if theirs is None else Sample(theirs)) for ours, theirs in pairs])


@pytest.mark.parametrize(("part", "expected"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1, 100)])
def test_a_quantile_is_a_value_that_was_seen_by_nearest_rank(part: float, expected: float):
    assert quantile(list(range(1, 101)), part) == expected


def test_every_quantile_of_one_value_is_that_value():
    assert [quantile([7.0], part) for part in (0.01, 0.5, 0.99, 1)] == [7.0] * 4


def test_the_spread_is_the_distance_of_the_extremes_in_parts_of_the_median():
    assert spread([90, 100, 120]) == pytest.approx(0.3)
    assert spread([5]) == 0


def test_a_row_has_the_median_of_the_ratios_of_its_pairs_and_not_the_ratio_of_medians():
    measured = row(RATIO, (100, 50), (300, 100), (200, 20))
    assert (measured.result, measured.reference) == (200, 50)
    assert measured.ratio == 3


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(4.0, "goal"), (3.999, "must"), (2.0, "must"), (1.999, "NOT MET"), (0.0, "NOT MET")]
)
def test_a_ratio_is_held_to_its_lower_bounds(ratio: float, verdict: str):
    assert row(RATIO, (ratio * 1000, 1000)).verdict == verdict


@pytest.mark.parametrize(("seconds", "verdict"), [(5.0, "goal"), (5.001, "must"), (10.0, "must"), (10.001, "NOT MET")])
def test_a_time_is_held_to_its_upper_bounds(seconds: float, verdict: str):
    assert row(TIME, (seconds, None)).verdict == verdict


def test_a_row_without_bounds_is_only_told():
    assert row(Target("P13", "work", "s"), (1.0, None)).verdict == "-"


def test_a_fault_of_either_side_makes_the_row_invalid_and_names_the_repeat():
    faulty = Sample(10.0, faults=("3 answers 503",))
    ours = Row(RATIO, [Pair(Sample(9.0), Sample(1.0)), Pair(faulty, Sample(1.0))])
    theirs = Row(RATIO, [Pair(Sample(9.0), faulty)])
    assert (ours.verdict, ours.faults) == ("INVALID", ["repeat 2: 3 answers 503"])
    assert (theirs.verdict, theirs.faults) == ("INVALID", ["repeat 1: reference: 3 answers 503"])


def test_a_comparison_with_nothing_is_invalid():
    assert row(RATIO, (100, 50), (100, None)).verdict == "INVALID"
    assert row(RATIO, (100, 0)).verdict == "INVALID"


def test_percentiles_and_details_are_medians_over_the_repeats():
    pairs = [
        Pair(Sample(1.0, p50_ms=value, p99_ms=value * 10, detail={"product_us": value}), Sample(1.0, p50_ms=value + 1))
        for value in (3.0, 1.0, 2.0)
    ]
    measured = Row(RATIO, pairs)
    assert (measured.percentile("p50_ms"), measured.percentile("p99_ms")) == (2.0, 20.0)
    assert (measured.percentile("p50_ms", of_reference=True), measured.percentile("p99_ms", of_reference=True)) == (
        3.0,
        None,
    )
    assert (measured.detail("product_us"), measured.detail("product_us", of_reference=True)) == (2.0, None)
