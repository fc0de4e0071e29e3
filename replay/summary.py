"""What a replay says at the end, to a person or to a program."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from replay.course import Outcome
from replay.rejections import count_reasons

DIFFERENCES_SHOWN = 10

_SHARES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}


def summarize(outcome: Outcome, report: Path) -> dict[str, Any]:
    """Everything that is said, as it goes into JSON; quantities and money as decimals in strings."""
    run, options = outcome.run, outcome.options
    return {
        "is_sound": is_sound(outcome),
        "days": options.days,
        "seed": options.seed,
        "concurrency": options.concurrency,
        "steps": [{"name": s.name, "count": s.done, "took_s": round(s.took_s, 3)} for s in run.watch.steps],
        "orders": dict(run.orders),
        "orders_per_s": _rate(outcome, "baskets"),
        "answers": summarize_latencies(run.client.latencies_s),
        "attempts_again": run.client.attempts_again,
        "refusals": dict(run.refusals.most_common()),
        "failures": run.failures,
        "rows": {"sales": outcome.rows, "rejected": count_reasons(run.rejected), "report": str(report)},
        "units": _summarize_units(outcome),
        "value": {
            "opening_at_cost": str(_money(run.books.opening.value)),
            "shipped_at_price": str(_money(run.books.shipped.value)),
            "returned_at_price": str(_money(run.books.returned.value)),
        },
        "integrity": outcome.integrity,
    }


def is_sound(outcome: Outcome) -> bool:
    """Whether every unit is where it should be, every invariant was proven, and everything was answered."""
    findings: Sequence[Mapping[str, Any]] = outcome.integrity["invariants"]
    is_proven = bool(findings) and all(finding["violations"] == 0 for finding in findings)
    return is_proven and not outcome.differences and not outcome.run.failures


def summarize_latencies(latencies_s: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """By route: how many calls, and within how many milliseconds which share of them was answered."""
    summary: dict[str, dict[str, float]] = {}
    for route, unordered in sorted(latencies_s.items()):
        ordered = sorted(unordered)
        summary[route] = {"calls": len(ordered)}
        for name, share in _SHARES.items():
            # The nearest rank: the smallest value that at least this share of the calls did not exceed.
            summary[route][name] = round(ordered[math.ceil(share * len(ordered)) - 1] * 1000, 1)
    return summary


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print it as tables."""
    console.print(
        f"\nDays replayed: {summary['days']}, requests at a time: {summary['concurrency']}, seed: {summary['seed']}"
    )
    steps = [
        (s["name"], f"{s['count']:,}", f"{s['took_s']:,.1f}", f"{s['count'] / s['took_s']:,.0f}" if s["took_s"] else "")
        for s in summary["steps"]
    ]
    _print_table(console, ("step", "count", "seconds", "per second"), steps)
    answers = [(route, *(f"{value:,}" for value in row.values())) for route, row in summary["answers"].items()]
    _print_table(console, ("request", "calls", "p50 ms", "p95 ms", "p99 ms", "max ms"), answers)
    _print_counts(console, "orders, by what could be allocated", summary["orders"])
    _print_counts(console, "refusals", summary["refusals"])
    _print_counts(console, f"rows of {summary['rows']['sales']:,} that were not replayed", summary["rows"]["rejected"])
    console.print(f"each of them is in {summary['rows']['report']}", soft_wrap=True)
    _print_books(console, summary)
    _print_integrity(console, summary["integrity"])
    for failure in summary["failures"]:
        console.print(f"not answered: {failure}", soft_wrap=True)
    console.print(f"{summary['orders_per_s']:,} orders a second, each placed and shipped")
    console.print("The books agree." if summary["is_sound"] else "THE BOOKS DO NOT AGREE, or could not be proven.")


def _print_books(console: Console, summary: Mapping[str, Any]) -> None:
    units, value = summary["units"], summary["value"]
    rows = (
        ("opening stock", f"{units['opening']:,}", f"{Decimal(value['opening_at_cost']):,} at cost"),
        ("+ returned", f"{units['returned']:,}", f"{Decimal(value['returned_at_price']):,} at the price of the sale"),
        ("- shipped", f"{units['shipped']:,}", f"{Decimal(value['shipped_at_price']):,} at the price of the sale"),
        ("= expected", f"{units['expected']:,}", ""),
        ("on hand", f"{Decimal(units['on_hand']):,}", f"{units['places_that_differ']:,} of {units['places']:,} differ"),
    )
    _print_table(console, ("books", "units", "value"), rows)
    for each in units["differences"]:
        console.print(f"  {each['store']} {each['sku']}: {each['found']} on hand, not {each['expected']}")


def _print_integrity(console: Console, report: Mapping[str, Any]) -> None:
    rows = [
        (finding["id"], finding["promise"], "unknown" if finding["violations"] is None else str(finding["violations"]))
        for finding in report["invariants"]
    ]
    _print_table(console, ("", "invariant", "violations"), rows)


def _print_counts(console: Console, title: str, counts: Mapping[str, int]) -> None:
    _print_table(console, (title, "count"), [(name, f"{count:,}") for name, count in counts.items()] or [("none", "")])


def _print_table(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        is_text = place == 0 or head in ("value", "invariant")
        table.add_column(head, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)


def _summarize_units(outcome: Outcome) -> dict[str, Any]:
    books = outcome.run.books
    expected = books.expected()
    return {
        "opening": books.opening.total,
        "returned": books.returned.total,
        "shipped": books.shipped.total,
        "expected": int(sum(expected.values(), Decimal(0))),
        "on_hand": str(outcome.on_hand_gained),
        "places": len(expected),
        "places_that_differ": len(outcome.differences),
        "differences": [
            {"store": each.store, "sku": each.sku, "expected": str(each.expected), "found": str(each.found)}
            for each in outcome.differences[:DIFFERENCES_SHOWN]
        ],
    }


def _rate(outcome: Outcome, name: str) -> float:
    step = next(step for step in outcome.run.watch.steps if step.name == name)
    return round(step.done / step.took_s, 1) if step.took_s else 0.0


def _money(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.01"))
