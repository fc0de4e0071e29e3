"""The command line of the replay: `python -m replay`, which `make replay` calls with the data set at hand.

Exit codes: 0 the books agree, 1 they do not or it broke off, 2 wrong usage, 130 interrupted.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console

from replay.client import check_loopback
from replay.course import Options, Outcome, replay
from replay.dataset import SALES_FILE, find_file
from replay.errors import Broken, WrongUsage
from replay.progress import Watch
from replay.rejections import write_report
from replay.server import Access, make_directory, run_stockade
from replay.summary import is_sound, show, summarize

_PASSWORD = "STOCKADE_REPLAY_PASSWORD"
_WIDTH = 120

app = App(
    name="replay",
    help="Replay real shopping baskets against Stockade, and compare the books with them.",
    suppress_keyboard_interrupt=False,
)


@app.default
def run(
    *,
    days: Annotated[int, Parameter(help="How many days of 2017 to replay.", validator=Number(gte=1, lte=366))] = 3,
    concurrency: Annotated[int, Parameter(help="Requests at once.", validator=Number(gte=1, lte=256))] = 16,
    seed: Annotated[int, Parameter(help="Which stock is short and what comes back.", validator=Number(gte=0))] = 1,
    report: Annotated[Path | None, Parameter(help="CSV file for the rows that cannot be replayed.")] = None,
    url: Annotated[str | None, Parameter(help="A running Stockade on loopback, instead of one of its own.")] = None,
    email: Annotated[str | None, Parameter(help=f"Account there; its password is in {_PASSWORD}.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print the summary as JSON.")] = False,
) -> None:
    """Load the products and stores, replay days of baskets as orders, take returns, and prove the books."""
    options = Options(days=days, concurrency=concurrency, seed=seed)
    # Found missing before anything is started for it.
    find_file(SALES_FILE)
    with contextlib.ExitStack() as stack:
        if url is None:
            if email is not None:
                raise WrongUsage("--email belongs to --url: a Stockade of the replay's own has an account of its own.")
            directory = stack.enter_context(make_directory())
            path = report or directory.with_name(f"{directory.name}-report.csv")
            access = stack.enter_context(run_stockade(directory))
        else:
            path = report or Path("replay-report.csv")
            access = _read_access(url, email)
        outcome = _replay(access, options)
        write_report(path, outcome.run.rejected)
        _tell(outcome, path, as_json=as_json)
    if not is_sound(outcome):
        raise SystemExit(1)


def main() -> None:
    # Whoever asks it to end, or closes its terminal, gets what Ctrl-C does: the server of its own is stopped and removed.
    for request in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(request, signal.default_int_handler)
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(2, f"{str(error).strip().splitlines()[0]} (--help shows what there is)")
    except WrongUsage as error:
        _fail(2, str(error))
    except (Broken, OSError) as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        _fail(130, "interrupted")


def _replay(access: Access, options: Options) -> Outcome:
    with Watch() as watch:
        return asyncio.run(replay(access, options, watch))


def _read_access(url: str, email: str | None) -> Access:
    password = os.environ.get(_PASSWORD, "")
    if not email or not password:
        raise WrongUsage(f"--url needs --email, and the password of that account in {_PASSWORD}.")
    return Access(check_loopback(url), email, password)


def _tell(outcome: Outcome, report: Path, *, as_json: bool) -> None:
    summary = summarize(outcome, report)
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        show(summary, Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, markup=False))


def _fail(code: int, line: str) -> None:
    print(f"replay: {line}", file=sys.stderr)
    raise SystemExit(code)


main()
