"""The course of one `make bench`: which servers run when, and what is measured on them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.installation import Installation, Running, installed, throw_away_directory
from bench.machine import describe_database, describe_place
from bench.meters import check_readable
from bench.pgbench import Pgbench
from bench.rates import Comparison, Say
from bench.results import Row
from bench.starts import measure_one_service, measure_starts
from bench.stock import stock_up
from bench.targets import IDS, TARGETS

_SERVED = ("user-service", "product-catalog-service", "inventory-service")
"""What an inventory-service needs beside it: keys for tokens, and the products' feed."""
_SERVED_IDS = frozenset({"P1", "P2", "P5", "P6"})
_LOADED_IDS = _SERVED_IDS | {"P7"}


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    only: frozenset[str] = IDS
    seconds: float = 3.0
    repeats: int = 3
    skus: int = 100_000


@dataclass
class Findings:
    """What was seen: the rows in the order of the targets, and where it was seen."""

    rows: list[Row] = field(default_factory=list[Row])
    place: dict[str, Any] = field(default_factory=dict[str, Any])


async def measure(options: Options, say: Say) -> Findings:
    """Every row that was asked for; nothing is left running or on the disk afterwards."""
    check_readable()
    with throw_away_directory() as directory:
        findings = Findings(place=describe_place(directory))
        if options.only & {"P12", "P13"}:
            findings.rows += await measure_starts(directory, repeats=options.repeats, say=say)
        if options.only & (_LOADED_IDS | {"P12"}):
            async with installed(directory) as installation:
                findings.place |= await describe_database(installation)
                findings.rows += await _measure_installed(installation, options, say)
    found = [row for row in findings.rows if row.target.id in options.only]
    findings.rows = sorted(found, key=lambda row: TARGETS.index(row.target))
    return findings


async def _measure_installed(installation: Installation, options: Options, say: Say) -> list[Row]:
    rows: list[Row] = []
    if "P12" in options.only:
        rows.append(await measure_one_service(installation, repeats=options.repeats, say=say))
    if options.only & _LOADED_IDS:
        rows += await _measure_loaded(installation, options, say)
    return rows


async def _measure_loaded(installation: Installation, options: Options, say: Say) -> list[Row]:
    pgbench = Pgbench(installation, skus=options.skus)
    orders: list[Row] = []
    served: list[Row] = []
    async with installation.up() as everything:
        say(f"stocking {options.skus:,} SKUs through the API")
        await stock_up(everything.api, skus=options.skus)
        await pgbench.prepare()
        await installation.settle(everything)
        if "P7" in options.only:
            # First, while no consumer has a backlog of the other rows' events to work through.
            orders += await _compare(installation, pgbench, everything, options, say).measure_orders()
            await _check_books(everything, orders, say)
    if options.only & _SERVED_IDS:
        served += await _measure_served(installation, pgbench, options, say)
        async with installation.up() as everything:
            await _check_books(everything, served, say)
    return orders + served


async def _measure_served(installation: Installation, pgbench: Pgbench, options: Options, say: Say) -> list[Row]:
    """The rows of one service process, the lighter ones first, so that no backlog of writes disturbs them."""
    rows: list[Row] = []
    async with installation.serve(*_SERVED) as running:
        product = running.pop("inventory-service")
        comparison = _compare(
            installation, pgbench, product, options, say, keys=running["user-service"], beside=list(running.values())
        )
        for row_id, measure_row in (
            ("P5", comparison.measure_alone),
            ("P6", comparison.measure_stock),
            ("P2", comparison.measure_uniform),
            ("P1", comparison.measure_hot),
        ):
            if row_id in options.only:
                rows += await measure_row()
    return rows


def _compare(
    installation: Installation,
    pgbench: Pgbench,
    product: Running,
    options: Options,
    say: Say,
    *,
    keys: Running | None = None,
    beside: Sequence[Running] = (),
) -> Comparison:
    return Comparison(
        installation=installation, pgbench=pgbench, product=product, sign_in=(keys or product).api.sign_in,
        beside=tuple(one.process.id for one in beside), seconds=options.seconds, repeats=options.repeats,
        skus=options.skus, say=say,
    )  # fmt: skip


async def _check_books(everything: Running, rows: list[Row], say: Say) -> None:
    """Have every service prove its books after the load; a violation makes every row of it invalid."""
    report = await everything.api.get("/integrity")
    broken = [finding["id"] for finding in report["invariants"] if finding["violations"] != 0]
    say(f"GET /integrity: {report['violations']} violations of {len(report['invariants'])} invariants")
    if broken:
        for row in rows:
            row.faults.append(f"the books are broken afterwards: {', '.join(broken)}")
