"""The rows that compare a rate or a time with pgbench: both sides take turns, and each run is checked for what it left."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from bench import targets, traffic
from bench.footprints import NOTHING, ORDER, RESERVATION, Footprint
from bench.installation import Installation, Running
from bench.load import Load, MakeRequest, Outcome
from bench.meters import Meter, usage
from bench.pgbench import PLACE_ORDER, READ_ANY, RESERVE_ANY, RESERVE_HOT, Pgbench
from bench.results import Pair, Row, Sample, Target, quantile

CONNECTIONS = 64
ORDER_CLIENTS = 16

_CLIENT_COUNTS = (2, 4, 8, 16, 32)
_READS_SAMPLED = 0.1
_WARM_UP_MAX_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What one side does in a row: requests of the product, a script of pgbench, and the rows that both must leave."""

    make_traffic: Callable[[str, int], MakeRequest]
    """From an access token and the number of the repeat."""
    expect: int
    script: str
    footprint: Footprint
    sampling: float = 1.0


@dataclass(frozen=True)
class Comparison:
    """How the rows of one `bench` are measured."""

    installation: Installation
    pgbench: Pgbench
    product: Running
    """The process whose answers and CPU are measured."""
    sign_in: Callable[[], Awaitable[str]]
    beside: tuple[int, ...]
    seconds: float
    repeats: int
    skus: int
    say: Say

    async def measure_hot(self) -> list[Row]:
        """P1: against 64 clients, against pgbench's best count of clients, and the times."""
        work = Work(lambda token, seed: traffic.reserve_one(token, skus=None, seed=seed), 201, RESERVE_HOT, RESERVATION)
        best = await self._find_best_count(work)
        against_all: list[Pair] = []
        against_best: list[Pair] = []
        for repeat in range(self.repeats):
            reference = await self._run_reference(work, clients=CONNECTIONS)
            product = await self._run_product(work, connections=CONNECTIONS, repeat=repeat)
            of_best = await self._run_reference(work, clients=best)
            against_all.append(Pair(product, reference))
            against_best.append(Pair(product, of_best))
            self._tell(targets.HOT, repeat, against_all[-1])
        times = [Pair(_in_ms(pair.product, "p99_ms")) for pair in against_all]
        note = f"pgbench's best count of clients was {best}"
        return [
            Row(targets.HOT, against_all),
            Row(targets.HOT_BEST, against_best, notes=[note]),
            Row(targets.HOT_P99, times),
        ]

    async def measure_uniform(self) -> list[Row]:
        """P2."""
        work = Work(
            lambda token, seed: traffic.reserve_one(token, skus=self.skus, seed=seed), 201, RESERVE_ANY, RESERVATION
        )
        return [await self._compare(targets.UNIFORM, work, connections=CONNECTIONS)]

    async def measure_alone(self) -> list[Row]:
        """P5: the median time of one request after the other, beside that of one client of pgbench."""
        work = Work(lambda token, seed: traffic.reserve_one(token, skus=None, seed=seed), 201, RESERVE_HOT, RESERVATION)
        row = await self._compare(targets.ALONE, work, connections=1, value="p50_ms")
        row.notes.append("the design compares with the same front, one transaction a request; pgbench has no front")
        return [row]

    async def measure_stock(self) -> list[Row]:
        """P6."""
        work = Work(
            lambda token, seed: traffic.read_stock(token, skus=self.skus, seed=seed), 200, READ_ANY, NOTHING,
            sampling=_READS_SAMPLED,
        )  # fmt: skip
        return [await self._compare(targets.STOCK, work, connections=CONNECTIONS)]

    async def measure_orders(self) -> list[Row]:
        """P7."""
        work = Work(lambda token, seed: traffic.place_order(token, skus=self.skus, seed=seed), 201, PLACE_ORDER, ORDER)
        return [await self._compare(targets.ORDERS, work, connections=ORDER_CLIENTS)]

    async def _compare(self, target: Target, work: Work, *, connections: int, value: str = "") -> Row:
        pairs: list[Pair] = []
        for repeat in range(self.repeats):
            reference = await self._run_reference(work, clients=connections)
            product = await self._run_product(work, connections=connections, repeat=repeat)
            pair = Pair(product, reference)
            pairs.append(Pair(_in_ms(product, value), _in_ms(reference, value)) if value else pair)
            self._tell(target, repeat, pairs[-1])
        return Row(target, pairs)

    async def _find_best_count(self, work: Work) -> int:
        """The number of clients with which pgbench is fastest; a short look at each is enough to tell."""
        rates: dict[int, float] = {}
        for clients in _CLIENT_COUNTS:
            sample = await self.pgbench.run(
                work.script, clients=clients, warm_up_s=0.3, seconds=min(0.7, self.seconds), sampling=work.sampling
            )
            rates[clients] = sample.value
        return max(rates, key=lambda clients: rates[clients])

    async def _run_reference(self, work: Work, *, clients: int) -> Sample:
        before = await work.footprint.count(self.installation, of_reference=True)
        sample = await self.pgbench.run(
            work.script, clients=clients, warm_up_s=self._warm_up_s, seconds=self.seconds, sampling=work.sampling
        )
        after = await work.footprint.count(self.installation, of_reference=True)
        faults = work.footprint.find_faults(before, after, requests=sample.count)
        return replace(sample, faults=(*sample.faults, *faults))

    async def _run_product(self, work: Work, *, connections: int, repeat: int) -> Sample:
        make_request = work.make_traffic(await self.sign_in(), repeat)
        meter = Meter(
            postgres=self.installation.postgres_id, product=(self.product.process.id,), beside=self.beside
        )  # fmt: skip
        load = Load(
            self.product.api.port, make_request, connections=connections, expect=work.expect, meter=meter
        )  # fmt: skip
        before = await work.footprint.count(self.installation)
        outcome = await load.run(warm_up_s=self._warm_up_s, seconds=self.seconds)
        after = await work.footprint.count(self.installation)
        left = work.footprint.find_faults(before, after, requests=outcome.statuses[work.expect])
        return _sample(outcome, _find_faults(outcome, work.expect) + left)

    @property
    def _warm_up_s(self) -> float:
        return min(_WARM_UP_MAX_S, self.seconds / 3)

    def _tell(self, target: Target, repeat: int, pair: Pair) -> None:
        assert pair.reference is not None, "these rows compare"
        figures = f"{pair.product.value:,.4g} {target.unit} against {pair.reference.value:,.4g}"
        self.say(f"{target.id} {repeat + 1}/{self.repeats}: {target.work.format(skus=f'{self.skus:,}')}: {figures}")


def _sample(outcome: Outcome, faults: tuple[str, ...]) -> Sample:
    ordered_ms = sorted(seconds * 1e3 for seconds in outcome.times_s)
    count = len(ordered_ms)
    if not count:
        return Sample(0.0, faults=(*faults, "no request was answered in time"))
    return Sample(
        value=outcome.rate, p50_ms=quantile(ordered_ms, 0.5), p99_ms=quantile(ordered_ms, 0.99), count=count,
        detail=usage(outcome.before, outcome.after, count=count), faults=faults,
    )  # fmt: skip


def _find_faults(outcome: Outcome, expect: int) -> tuple[str, ...]:
    faults = [f"{count} answers {status}" for status, count in sorted(outcome.statuses.items()) if status != expect]
    if outcome.broken:
        faults.append(f"{outcome.broken} requests without an answer")
    if faults:
        faults.append(f"the first: {outcome.first_unexpected}")
    return tuple(faults)


def _in_ms(sample: Sample, name: str) -> Sample:
    """The same run, judged by one of its times."""
    value = sample.p50_ms if name == "p50_ms" else sample.p99_ms
    return replace(sample, value=value or 0.0)
