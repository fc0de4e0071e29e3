"""What was measured: samples of both sides, paired by repeat, and the row that they make up."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["goal", "must", "NOT MET", "INVALID", "-"]


@dataclass(frozen=True)
class Target:
    """What a row is held to (design, section 9): the ratio to the reference, or the value itself, and from which side."""

    id: str
    work: str
    """In words; `{skus}` stands for how many SKUs there were."""
    unit: str
    reference: str = ""
    """What the reference is, in words; empty where the value itself is judged."""
    at_least: bool = True
    must: float | None = None
    goal: float | None = None

    @property
    def is_ratio(self) -> bool:
        return bool(self.reference)


@dataclass(frozen=True)
class Sample:
    """One run of one side. `value` is in the unit of the row; times are in milliseconds."""

    value: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    count: int = 0
    detail: Mapping[str, float] = field(default_factory=dict[str, float])
    """CPU microseconds per request by who spent them, cores that strangers used, and what else is worth keeping."""
    faults: tuple[str, ...] = ()
    """Why this run does not count."""


@dataclass(frozen=True)
class Pair:
    """A repeat: the product, and the reference that was measured right before or after it."""

    product: Sample
    reference: Sample | None = None

    @property
    def ratio(self) -> float | None:
        return self.product.value / self.reference.value if self.reference and self.reference.value else None


@dataclass
class Row:
    """A line of the table. Figures are medians over the repeats; the ratio is the median of the paired ratios."""

    target: Target
    pairs: list[Pair]
    notes: list[str] = field(default_factory=list[str])
    faults: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        assert self.pairs, "a row without a measurement is no row"
        for number, pair in enumerate(self.pairs, start=1):
            sides = [("", pair.product)] + ([("reference: ", pair.reference)] if pair.reference else [])
            self.faults += [f"repeat {number}: {side}{fault}" for side, sample in sides for fault in sample.faults]
        if self.target.is_ratio and any(pair.ratio is None for pair in self.pairs):
            self.faults.append("there is nothing to compare with")

    @property
    def result(self) -> float:
        return statistics.median(pair.product.value for pair in self.pairs)

    @property
    def reference(self) -> float | None:
        values = [pair.reference.value for pair in self.pairs if pair.reference]
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        ratios = [pair.ratio for pair in self.pairs if pair.ratio is not None]
        return statistics.median(ratios) if ratios else None

    @property
    def spread(self) -> float:
        """How far the repeats of the product lie apart, as a part of their median."""
        return spread([pair.product.value for pair in self.pairs])

    @property
    def verdict(self) -> Verdict:
        figure = self.ratio if self.target.is_ratio else self.result
        if self.faults or figure is None:
            return "INVALID"
        if self.target.must is None:
            return "-"
        if self._meets(figure, self.target.goal):
            return "goal"
        return "must" if self._meets(figure, self.target.must) else "NOT MET"

    def percentile(self, name: Literal["p50_ms", "p99_ms"], *, of_reference: bool = False) -> float | None:
        """The median over the repeats of a percentile."""
        samples = [pair.reference if of_reference else pair.product for pair in self.pairs]
        found = [value for sample in samples if sample and (value := getattr(sample, name)) is not None]
        return statistics.median(found) if found else None

    def detail(self, name: str, *, of_reference: bool = False) -> float | None:
        """The median over the repeats of something in `detail`."""
        samples = [pair.reference if of_reference else pair.product for pair in self.pairs]
        found = [sample.detail[name] for sample in samples if sample and name in sample.detail]
        return statistics.median(found) if found else None

    def _meets(self, figure: float, bound: float | None) -> bool:
        if bound is None:
            return False
        return figure >= bound if self.target.at_least else figure <= bound


def quantile(ordered: Sequence[float], part: float) -> float:
    """The nearest-rank quantile of sorted values: the smallest one that at least this part of them does not exceed."""
    assert ordered, "no values have no quantile"
    assert 0 < part <= 1, "a part of the whole"
    return ordered[math.ceil(part * len(ordered)) - 1]


def spread(values: Sequence[float]) -> float:
    """The distance between the extremes as a part of the median; 0 for one value."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0
