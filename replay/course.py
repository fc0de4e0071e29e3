"""The course of a replay: from the first row that is read to the comparison of the books."""

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from replay.baskets import Basket, Sale, gather_baskets, judge_sale
from replay.books import Difference, find_differences, subtract
from replay.client import Client, GaveUp, Refused
from replay.dataset import read_products, read_sales
from replay.errors import Broken, WrongUsage
from replay.plans import choose_returns, plan_opening
from replay.progress import Watch
from replay.server import Access
from replay.steps import (
    Run,
    load_products,
    open_stores,
    read_existing_stores,
    read_on_hand,
    receive_opening,
    replay_baskets,
    take_returns,
)


@dataclass(frozen=True)
class Options:
    """What is replayed, how hard, and with which chances."""

    days: int
    concurrency: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What happened in `run`, and what the server has to say about it at the end."""

    options: Options
    run: Run
    rows: int
    """Sales lines of the chosen days."""
    on_hand_gained: Decimal
    """Over all stores that were replayed, compared with before."""
    differences: list[Difference]
    integrity: dict[str, Any]
    """The report of GET /integrity; without invariants when it was refused."""


async def replay(access: Access, options: Options, watch: Watch) -> Outcome:
    """Replay the first days of the data set. Raises WrongUsage for a server that lets nobody in, Broken for one that fails."""
    client = Client(access.url, email=access.email, password=access.password, connections=options.concurrency)
    try:
        async with client:
            return await _replay(Run(uuid.uuid4().hex[:12], client, watch, options.concurrency), options)
    except (Refused, GaveUp) as error:
        raise Broken(str(error)) from error


async def _replay(run: Run, options: Options) -> Outcome:
    fuels = await load_products(run, list(read_products()))
    rows, baskets = _read_baskets(run, options, fuels)
    stores = sorted({basket.store for basket in baskets})
    known = await read_existing_stores(run, stores)
    before = await read_on_hand(run, known, step="stock before") if known else {}
    await open_stores(run, stores)
    await receive_opening(run, plan_opening(baskets, seed=options.seed))
    shipped = await replay_baskets(run, baskets)
    chosen = [(each, choose_returns(each.basket, each.lines, seed=options.seed)) for each in shipped]
    await take_returns(run, [(each, lines) for each, lines in chosen if lines])
    gained = subtract(await read_on_hand(run, stores, step="stock after"), before)
    return Outcome(
        options=options,
        run=run,
        rows=rows,
        on_hand_gained=sum(gained.values(), Decimal(0)),
        differences=find_differences(run.books.expected(), gained),
        integrity=await _read_integrity(run),
    )


def _read_baskets(run: Run, options: Options, fuels: dict[int, bool]) -> tuple[int, list[Basket]]:
    """How many rows there are, and the baskets of those that make sense; the others are written down."""
    sales: list[Sale] = []
    rows = 0
    for number, row in read_sales(options.days):
        rows += 1
        judged = judge_sale(number, row, fuels)
        if isinstance(judged, Sale):
            sales.append(judged)
        else:
            run.rejected.append(judged)
    if not sales:
        raise WrongUsage("There is nothing to replay in these days.")
    return rows, gather_baskets(sales)


async def _read_integrity(run: Run) -> dict[str, Any]:
    with run.watch.step("integrity", 1) as advance:
        try:
            report = await run.client.get("/integrity")
        except (Refused, GaveUp) as error:
            run.failures.append(str(error))
            report = {"violations": None, "invariants": []}
        advance(1)
    return report
