"""Everything that was seen, as JSON: machine, versions, arguments, and each repeat of each row."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.campaign import Options
from bench.results import Row

FORMAT = 1


def write_record(path: Path, *, rows: list[Row], options: Options, machine: dict[str, Any]) -> None:
    """Write it, whole or not at all."""
    document = {
        "format": FORMAT,
        "machine": machine,
        "options": {**asdict(options), "only": sorted(options.only)},
        "rows": [_row(row, options) for row in rows],
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _row(row: Row, options: Options) -> dict[str, Any]:
    target = row.target
    return {
        "id": target.id,
        "work": target.work.format(skus=f"{options.skus:,}"),
        "unit": target.unit,
        "compared_with": target.reference or None,
        "result": row.result,
        "reference": row.reference,
        "ratio": row.ratio,
        "must": target.must,
        "goal": target.goal,
        "at_least": target.at_least,
        "verdict": row.verdict,
        "p50_ms": row.percentile("p50_ms"),
        "p99_ms": row.percentile("p99_ms"),
        "spread": row.spread,
        "notes": row.notes,
        "faults": row.faults,
        "repeats": [asdict(pair) | {"ratio": pair.ratio} for pair in row.pairs],
    }
