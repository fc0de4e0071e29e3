"""The rows that cannot be replayed: why, and a report of each of them."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rejected:
    """A row of a file of the data set (the first being 1), a reason that programs can count by, and what the row holds."""

    file: str
    row: int
    reason: str
    values: Mapping[str, object]


def write_report(path: Path, rejected: Iterable[Rejected]) -> None:
    """Write a CSV file with a line per row, in the order of the files; the values as one JSON object."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "row", "reason", "values"))
        for each in sorted(rejected, key=lambda each: (each.file, each.row)):
            writer.writerow((each.file, each.row, each.reason, json.dumps(each.values, default=str)))


def count_reasons(rejected: Iterable[Rejected]) -> dict[str, int]:
    """How many rows by reason, the most frequent first."""
    return dict(Counter(each.reason for each in rejected).most_common())
