"""The one table that is printed, and below it what has to be said about its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.results import Row
from bench.targets import MEASURED_ELSEWHERE, SKUS_OF_THE_TARGETS

_HEADS = (
    "#", "work", "result", "reference", "ratio", "must", "goal", "met", "p50 / p99 ms", "reference's", "spread",
    "CPU us + PostgreSQL's", "reference's", "foreign",
)  # fmt: skip
_LEFT = frozenset({0, 1, 7})
_NOISY_CORES = 0.2


def render(rows: Sequence[Row], *, skus: int, machine: Mapping[str, Any]) -> str:
    """The table as text, with a line about the machine above and the notes below."""
    described = f"{skus:,}" + ("" if skus == SKUS_OF_THE_TARGETS else f" (not {SKUS_OF_THE_TARGETS:,})")
    cells = [_cells(row, described) for row in rows]
    widths = [max(len(line[place]) for line in [_HEADS, *cells]) for place in range(len(_HEADS))]
    lines = [_describe(machine), "", _line(_HEADS, widths), _line(["-" * width for width in widths], widths)]
    lines += [_line(line, widths) for line in cells]
    return "\n".join([*lines, "", *_remarks(rows, machine)])


def format_figure(value: float | None) -> str:
    """Three significant digits or whole numbers with separators; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1g}"


def _cells(row: Row, skus: str) -> list[str]:
    target = row.target
    sign, unit = (">=" if target.at_least else "<="), ("x" if target.is_ratio else f" {target.unit}")
    return [
        target.id,
        target.work.format(skus=skus),
        f"{format_figure(row.result)} {target.unit}",
        f"{format_figure(row.reference)} {target.unit}" if target.is_ratio else "-",
        f"{format_figure(row.ratio)}x" if target.is_ratio else "-",
        "-" if target.must is None else f"{sign} {target.must:g}{unit}",
        "-" if target.goal is None else f"{sign} {target.goal:g}{unit}",
        row.verdict,
        _percentiles(row, of_reference=False),
        _percentiles(row, of_reference=True),
        f"{row.spread:.0%}" if len(row.pairs) > 1 else "-",
        f"{format_figure(row.detail('product_us'))} + {format_figure(row.detail('postgres_us'))}"
        if row.detail("product_us") is not None
        else "-",
        format_figure(row.detail("postgres_us", of_reference=True)),
        format_figure(_foreign_cores(row)) if row.detail("foreign_cores") is not None else "-",
    ]


def _percentiles(row: Row, *, of_reference: bool) -> str:
    p50, p99 = (row.percentile(name, of_reference=of_reference) for name in ("p50_ms", "p99_ms"))
    return "-" if p50 is None else f"{format_figure(p50)} / {format_figure(p99)}"


def _foreign_cores(row: Row) -> float:
    """What others used while either side was measured, the busier side of the two."""
    return max(row.detail("foreign_cores", of_reference=side) or 0.0 for side in (False, True))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if place in _LEFT else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _describe(machine: Mapping[str, Any]) -> str:
    """Where the figures are from, in one line."""
    parts = [
        f"{machine.get('cores')} cores of {machine.get('processor')}",
        f"{machine.get('filesystem')} with {machine.get('fdatasync_ms')} ms a commit",
        f"PostgreSQL {machine.get('postgresql', 'not compared with')}",
        f"Python {machine.get('python')}",
        f"commit {machine.get('commit') or 'unknown'}",
        str(machine.get("date")),
    ]
    return "; ".join(parts)


def _remarks(rows: Sequence[Row], machine: Mapping[str, Any]) -> list[str]:
    remarks: list[str] = []
    for row in rows:
        remarks += [f"{row.target.id}: {note}" for note in row.notes]
        remarks += [f"{row.target.id} is INVALID: {fault}" for fault in row.faults]
    noisy = {row.target.id for row in rows if _foreign_cores(row) > _NOISY_CORES}
    if noisy:
        remarks.append(
            f"others used more than {_NOISY_CORES} cores meanwhile: measure again ({', '.join(sorted(noisy))})"
        )
    if machine.get("filesystem") in ("tmpfs", "ramfs"):
        remarks.append("the data lay in memory, where a commit costs nothing: set TMPDIR to a directory on a disk")
    remarks.append(f"not measured here: {', '.join(MEASURED_ELSEWHERE)}")
    return list(dict.fromkeys(remarks))
