"""CPU and memory of processes, from /proc: ours by role, and what everybody else used meanwhile.

PostgreSQL's server and every one of its sessions that is alive are read one by one; what ended meanwhile is in its parent's
sum of children. So a pgbench whose sixty-four sessions are gone is counted as fully as a pool that is still there.
"""

import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def check_readable() -> None:
    """Raise BenchError where there is no /proc to read."""
    if not (_PROC / "self" / "smaps_rollup").exists():
        raise BenchError("CPU and memory are read from /proc: the benchmark runs on Linux (4.14 or newer) only")


@dataclass(frozen=True)
class Reading:
    """Seconds of CPU that were spent until a moment. `busy_s` is the machine's, without what a hypervisor took away."""

    at: float
    busy_s: float
    stolen_s: float
    product_s: float
    postgres_s: float
    beside_s: float
    client_s: float


@dataclass(frozen=True)
class Meter:
    """Which processes to read: those that are measured, PostgreSQL's server, and others of ours that stand beside."""

    postgres: int
    product: Sequence[int] = ()
    beside: Sequence[int] = ()

    def read(self) -> Reading:
        """The present state. The client is this process and whatever child of it has ended."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy_s, stolen_s = _machine()
        return Reading(
            at=time.perf_counter(),
            busy_s=busy_s,
            stolen_s=stolen_s,
            product_s=sum(map(_spent, self.product)),
            postgres_s=_spent_with_ended_children(self.postgres) + sum(map(_spent, children_of(self.postgres))),
            beside_s=sum(map(_spent, self.beside)),
            client_s=time.process_time() + children.ru_utime + children.ru_stime,
        )


def usage(before: Reading, after: Reading, *, count: int) -> Mapping[str, float]:
    """CPU microseconds per request of each role, and the cores that strangers and the hypervisor used meanwhile."""
    seconds = after.at - before.at
    own_s = sum(
        getattr(after, name) - getattr(before, name) for name in ("product_s", "postgres_s", "beside_s", "client_s")
    )
    strangers_s = max(0.0, after.busy_s - before.busy_s - own_s)

    def per_request_us(name: str) -> float:
        return (getattr(after, name) - getattr(before, name)) / max(count, 1) * 1e6

    return {
        "product_us": per_request_us("product_s"),
        "postgres_us": per_request_us("postgres_s"),
        "client_us": per_request_us("client_s"),
        "foreign_cores": strangers_s / seconds,
        "stolen_cores": (after.stolen_s - before.stolen_s) / seconds,
    }


@dataclass(frozen=True)
class Memory:
    """Proportional set size (shared pages counted in parts) and resident set size, in MiB."""

    pss_mib: float
    rss_mib: float


def read_memory(process_ids: Iterable[int]) -> Memory:
    """The memory of some processes together."""
    pss = rss = 0
    for process_id in process_ids:
        for line in (_PROC / str(process_id) / "smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            pss += int(rest.split()[0]) if name == "Pss" else 0
            rss += int(rest.split()[0]) if name == "Rss" else 0
    return Memory(pss / 1024, rss / 1024)


def children_of(process_id: int) -> list[int]:
    """The living children of a process, without theirs."""
    return [child for child, fields in _all_processes() if int(fields[1]) == process_id]


def name_of(process_id: int) -> str:
    """The short name of a process's program; empty when it is gone."""
    try:
        return (_PROC / str(process_id) / "comm").read_text().strip()
    except OSError:
        return ""


def _machine() -> tuple[float, float]:
    # user nice system idle iowait irq softirq steal; guests are in user already.
    user, nice, system, _, _, irq, softirq, steal = map(int, (_PROC / "stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq) / _TICKS, steal / _TICKS


def _spent(process_id: int) -> float:
    fields = _fields(process_id)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _spent_with_ended_children(process_id: int) -> float:
    fields = _fields(process_id)
    return sum(map(int, fields[11:15])) / _TICKS if fields else 0.0


def _all_processes() -> Iterator[tuple[int, list[str]]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            yield int(entry.name), fields


def _fields(process_id: int) -> list[str]:
    """What /proc says of a process, behind its name (which may hold blanks): state first, then the parent's id."""
    try:
        return (_PROC / str(process_id) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
