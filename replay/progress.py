"""What a person sees while it runs: bars with rates on a terminal, else a plain line every few seconds."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY_S = 5.0


@dataclass
class Step:
    """A part of the replay: how many of what are done, since when, and at the end how long it took."""

    name: str
    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    took_s: float = 0.0

    def describe(self, elapsed_s: float) -> str:
        rate = f", {self.done / elapsed_s:,.0f}/s" if elapsed_s else ""
        return f"{self.name}: {self.done:,} of {self.total:,} in {elapsed_s:,.1f} s{rate}"


class Watch:
    """Shows one step after the other on standard error, and remembers them. Use it as a context manager."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._said_at = 0.0
        console = Console(stderr=True)
        self._bars = _make_bars(console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    @contextlib.contextmanager
    def step(self, name: str, total: int) -> Generator[Callable[[int], None]]:
        """Time a step; call what it yields with the number of things that are done more."""
        step = Step(name, total)
        self.steps.append(step)
        show = self._begin_bar(self._bars, step) if self._bars else self._begin_lines(step)

        def advance(count: int) -> None:
            step.done += count
            show()

        try:
            yield advance
        finally:
            step.took_s = time.monotonic() - step.began
            if self._bars is None:
                _say(step.describe(step.took_s))

    def _begin_bar(self, bars: Progress, step: Step) -> Callable[[], None]:
        task = bars.add_task(step.name, total=step.total)
        return lambda: bars.update(task, completed=step.done)

    def _begin_lines(self, step: Step) -> Callable[[], None]:
        self._said_at = step.began

        def show() -> None:
            now = time.monotonic()
            if now - self._said_at >= LINE_EVERY_S:
                self._said_at = now
                _say(step.describe(now - step.began))

        return show


def _say(line: str) -> None:
    print(f"replay: {line}", file=sys.stderr, flush=True)


def _make_bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:>14}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "-", style="progress.data.speed")
