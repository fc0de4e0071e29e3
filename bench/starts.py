"""P12 and P13: memory of idle processes, and how long it takes until somebody is signed in."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bench import targets
from bench.api import Api
from bench.errors import BenchError
from bench.installation import ADMINISTRATOR, START_TIMEOUT_S, Installation
from bench.meters import children_of, name_of, read_memory
from bench.processes import Process, find_free_port, stockade, wait_until
from bench.results import Pair, Row, Sample, Target

_IDLE_S = 2.0
_POSTGRES = "postgres"

Say = Callable[[str], None]


async def measure_starts(directory: Path, *, repeats: int, say: Say) -> list[Row]:
    """A `stockade up` with its own PostgreSQL, on a new directory each time: first start, idle, restart, crash, start."""
    memory: list[Pair] = []
    times: dict[str, list[Pair]] = {"first": [], "restart": [], "recovery": []}
    for repeat in range(repeats):
        data = directory / f"first-{repeat}"
        async with _Local(data, directory / "up-alone.log") as local:
            times["first"].append(await local.start())
            memory.append(await local.measure_memory())
            await local.stop()
            times["restart"].append(await local.start())
            local.crash()
            times["recovery"].append(await local.start())
        seconds = ", ".join(f"{name} {pairs[-1].product.value:.2f} s" for name, pairs in times.items())
        say(f"P12, P13 {repeat + 1}/{repeats}: {seconds}, {memory[-1].product.value:.0f} MiB")
    return [
        _memory_row(targets.MEMORY_ALL, memory),
        Row(targets.FIRST_START, times["first"]),
        Row(targets.RESTART, times["restart"]),
        Row(targets.RECOVERY, times["recovery"]),
    ]


async def measure_one_service(installation: Installation, *, repeats: int, say: Say) -> Row:
    """The memory of an inventory-service that has nothing to do; the two that it listens to run as well, uncounted."""
    async with installation.up():
        pass  # It has made the schemas and the secrets that a single service needs.
    pairs: list[Pair] = []
    for repeat in range(repeats):
        async with installation.serve("user-service", "product-catalog-service", "inventory-service") as running:
            await asyncio.sleep(_IDLE_S)
            pairs.append(Pair(_memory_of([running["inventory-service"].process.id])))
        say(f"P12 {repeat + 1}/{repeats}: inventory-service alone, {pairs[-1].product.value:.0f} MiB")
    return _memory_row(targets.MEMORY_ONE, pairs)


class _Local:
    """`stockade up` on a directory of its own."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data = data
        self._log = log
        self._port = find_free_port()
        self._process: Process | None = None

    async def __aenter__(self) -> "_Local":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> Pair:
        """Start it; the time from there to the first sign-in that succeeds."""
        api = Api(self._port)
        began = time.perf_counter()
        command = stockade("up", "--data", str(self._data), "--port", str(self._port))
        process = self._process = Process(command, environment=ADMINISTRATOR, log=self._log)

        def is_signed_in() -> bool:
            process.check_alive()
            return api.try_to_sign_in()

        try:
            await wait_until(is_signed_in, limit_s=START_TIMEOUT_S)
        except TimeoutError:
            raise BenchError(f"nobody could sign in after {START_TIMEOUT_S} s: {api.last_answer}") from None
        return Pair(Sample(time.perf_counter() - began))

    async def measure_memory(self) -> Pair:
        """The memory of it and its children without PostgreSQL, after a while of having nothing to do."""
        assert self._process is not None, "started"
        await asyncio.sleep(_IDLE_S)
        children = [child for child in children_of(self._process.id) if name_of(child) != _POSTGRES]
        return Pair(_memory_of([self._process.id, *children]))

    def crash(self) -> None:
        """Kill PostgreSQL's server and Stockade at once, as a power cut would: the next start has to recover."""
        assert self._process is not None, "started"
        for child in children_of(self._process.id):
            os.kill(child, signal.SIGKILL)
        self._process.kill()

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()


def _memory_row(target: Target, pairs: list[Pair]) -> Row:
    row = Row(target, pairs)
    # PSS is what the target names; beside other Pythons, this one included, it is less than the process costs alone.
    row.notes.append(
        f"{target.work}: {row.detail('rss_mib'):.0f} MiB resident, with what it shares with other processes"
    )
    return row


def _memory_of(process_ids: list[int]) -> Sample:
    memory = read_memory(process_ids)
    return Sample(memory.pss_mib, detail={"rss_mib": memory.rss_mib})
