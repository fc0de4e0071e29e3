"""The printed table: every row in its columns, nothing nicer than it was."""

import pytest

from bench import targets
from bench.results import Pair, Row, Sample
from bench.table import format_figure, render

MACHINE = {"cores": 2, "processor": "a processor", "filesystem": "ext4", "fdatasync_ms": 0.1, "python": "3.11"}


def rows_of(rate: float, *, foreign_cores: float = 0.0, foreign_cores_of_reference: float = 0.0) -> list[Row]:
    ours = Sample(
        rate, 1.5, 9.25, count=100, detail={"product_us": 20.0, "postgres_us": 15.5, "foreign_cores": foreign_cores}
    )
    theirs = Sample(1000.0, 5.0, 50.0, detail={"postgres_us": 150.0, "foreign_cores": foreign_cores_of_reference})
    return [Row(targets.UNIFORM, [Pair(ours, theirs)])]


def cells_of(text: str, row_id: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"{row_id} "))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (0.00012, "0.0001"), (0.1234, "0.123"), (9.876, "9.88"), (99.96, "100"), (999.4, "999"),
        (1234.5, "1,234"), (1_234_567, "1,234,567"),
    ],
)  # fmt: skip
def test_figures_have_three_digits_or_separators(value: float | None, text: str):
    assert format_figure(value) == text


def test_a_row_shows_result_reference_ratio_bounds_and_verdict():
    text = render(rows_of(1900.0), skus=100_000, machine=MACHINE)
    assert cells_of(text, "P2") == [
        "P2", "reservations, uniform over 100,000 SKUs, 64 connections", "1,900 /s", "1,000 /s", "1.9x", ">= 1.5x",
        ">= 2.2x", "must", "1.5 / 9.25", "5 / 50", "-", "20 + 15.5", "150", "0",
    ]  # fmt: skip


def test_a_row_that_is_not_met_says_so():
    assert "NOT MET" in cells_of(render(rows_of(1400.0), skus=100_000, machine=MACHINE), "P2")


def test_a_smaller_stock_than_the_targets_mean_is_told_in_the_row():
    assert "over 200 (not 100,000) SKUs" in render(rows_of(1900.0), skus=200, machine=MACHINE)


def test_a_row_that_is_invalid_shows_no_verdict_and_tells_why():
    rows = rows_of(9000.0)
    rows[0].faults.append("2 answers 503")
    text = render(rows, skus=100_000, machine=MACHINE)
    assert "INVALID" in cells_of(text, "P2")
    assert "P2 is INVALID: 2 answers 503" in text


def test_it_tells_when_others_used_the_machine_or_the_disk_was_memory():
    text = render(rows_of(1900.0, foreign_cores=0.5), skus=100_000, machine=MACHINE | {"filesystem": "tmpfs"})
    assert "measure again (P2)" in text
    assert "a commit costs nothing" in text
    beside_pgbench = render(rows_of(1900.0, foreign_cores_of_reference=0.5), skus=100_000, machine=MACHINE)
    assert "measure again (P2)" in beside_pgbench
    assert "measure again" not in render(rows_of(1900.0), skus=100_000, machine=MACHINE)


def test_every_target_has_a_line_of_its_own_and_all_columns_line_up():
    rows = [Row(target, [Pair(Sample(1.0), Sample(1.0))]) for target in targets.TARGETS]
    lines = render(rows, skus=100_000, machine=MACHINE).split("\n\n")[1].splitlines()
    assert len(lines) == 2 + len(targets.TARGETS)
    rule = lines[1]
    edges = [place for place, character in enumerate(rule) if character == " "]
    assert all(line[place : place + 1] in (" ", "") for line in [lines[0], *lines[2:]] for place in edges)
