"""Background loops: they survive every failure, count it, back off, and end with the process."""

import asyncio
from itertools import pairwise

import pytest

from stockade.kit import background
from stockade.kit.background import Background
from stockade.kit.metrics import BACKGROUND_FAILURES


def failures_of(task: str) -> float:
    return BACKGROUND_FAILURES.labels("probe-service", task)._value.get()


async def test_a_loop_goes_on_after_failures_and_counts_them():
    rounds: list[str] = []

    async def work() -> None:
        rounds.append("round")
        if len(rounds) <= 3:
            raise [ValueError("no"), TimeoutError(), ExceptionGroup("two", [OSError(), KeyError()])][len(rounds) - 1]

    loops = Background("probe-service")
    loops.repeat("fails thrice", work, every_s=0.01)
    loops.start()
    await asyncio.sleep(0.5)
    await loops.stop()
    assert len(rounds) > 5
    assert failures_of("fails thrice") == 3


async def test_a_loop_survives_more_failures_than_a_float_can_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "_BACKOFF_MAX_S", 0.0)
    rounds = [0]

    async def work() -> None:
        rounds[0] += 1
        raise RuntimeError("always")

    loops = Background("probe-service")
    loops.repeat("fails always", work, every_s=0.1)
    loops.start()
    for _ in range(200):
        await asyncio.sleep(0.01)
        if rounds[0] > 1_100:
            break
    await loops.stop()
    assert rounds[0] > 1_100


async def test_a_failing_loop_comes_less_and_less_often():
    moments: list[float] = []

    async def work() -> None:
        moments.append(asyncio.get_running_loop().time())
        raise RuntimeError("always")

    loops = Background("probe-service")
    loops.repeat("backs off", work, every_s=0.05)
    loops.start()
    await asyncio.sleep(2)
    await loops.stop()
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert len(pauses) >= 4
    assert pauses[3] > 2 * pauses[0]


async def test_loops_do_not_wait_for_each_other():
    quick = [0]

    async def hang() -> None:
        await asyncio.sleep(60)

    async def count() -> None:
        quick[0] += 1

    loops = Background("probe-service")
    loops.repeat("hangs", hang, every_s=1)
    loops.repeat("quick", count, every_s=0.01)
    loops.start()
    await asyncio.sleep(0.3)
    await asyncio.wait_for(loops.stop(), 1)
    seen = quick[0]
    await asyncio.sleep(0.05)
    assert quick[0] == seen > 3
