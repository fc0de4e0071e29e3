"""`python -m bench`: measure, print one table, and write everything as JSON where asked to.

Exit codes: 0 every row could be measured (met or not), 1 a row is invalid or nothing could be measured, 2 wrong usage,
130 interrupted.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import App, CycloptsError, Parameter

from bench.campaign import Findings, Options, measure
from bench.errors import BenchError
from bench.machine import describe_machine
from bench.record import write_record
from bench.table import render
from bench.targets import IDS
from stockade.postgres import PostgresError

app = App(name="bench", help="Measure Stockade against its targets on this machine.", version_flags=[])


@app.default
def bench(
    *,
    only: Annotated[str, Parameter(help="Rows to measure, such as P1,P6. Default: all.")] = "",
    seconds: Annotated[float, Parameter(help="How long each side of each repeat is measured.")] = 3.0,
    repeats: Annotated[int, Parameter(help="How often each row is measured.")] = 3,
    skus: Annotated[int, Parameter(help="Products with stock. The targets are meant for 100,000.")] = 100_000,
    json: Annotated[Path | None, Parameter(help="Where to write everything that was seen.")] = None,
) -> None:
    """Measure, and print one table of work, result, reference, ratio, must, goal, and whether it was met."""
    options = _check(only, seconds, repeats, skus)
    if json is not None and not json.parent.is_dir():
        _fail(2, f"--json names a file in a directory that is not there: {json.parent}")
    machine = describe_machine()
    findings = _run(options)
    machine |= findings.place
    print(render(findings.rows, skus=skus, machine=machine))
    if json is not None:
        write_record(json, rows=findings.rows, options=options, machine=machine)
    raise SystemExit(1 if any(row.faults for row in findings.rows) else 0)


def _check(only: str, seconds: float, repeats: int, skus: int) -> Options:
    wanted = frozenset(name.strip().upper() for name in only.split(",") if name.strip()) or IDS
    if wanted - IDS:
        _fail(
            2, f"there is no row {', '.join(sorted(wanted - IDS))}; choose from {', '.join(sorted(IDS, key=_number))}"
        )
    for name, value, low, high in (
        ("seconds", seconds, 0.1, 60),
        ("repeats", repeats, 1, 50),
        ("skus", skus, 50, 999_999),
    ):
        if not low <= value <= high:
            _fail(2, f"--{name} must be from {low} to {high}")
    return Options(only=wanted, seconds=seconds, repeats=repeats, skus=skus)


def _run(options: Options) -> Findings:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_measure_until_told_to_stop(options))
    except (BenchError, PostgresError) as error:
        _fail(1, str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail(130, "interrupted; its servers are stopped and its directory is removed")
    raise AssertionError("every way above returns or exits")


async def _measure_until_told_to_stop(options: Options) -> Findings:
    task = asyncio.current_task()
    assert task is not None, "a runner runs tasks"
    with contextlib.suppress(NotImplementedError):
        # The runner does the same for Ctrl-C.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measure(options, _say)


def _number(row_id: str) -> int:
    return int(row_id[1:])


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _fail(code: int, line: str) -> None:
    _say(line)
    raise SystemExit(code)


if __name__ == "__main__":
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(2, f"{str(error).strip().splitlines()[0]} (python -m bench --help)")
