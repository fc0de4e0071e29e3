"""The client's bounds: where load may go, how long it waits, and how many work at once."""

import asyncio

import pytest

from replay.client import WAIT_MAX_S, Refused, check_loopback, wait_before
from replay.errors import Broken, WrongUsage
from replay.steps import as_pieces, do_each
from replay.summary import summarize_latencies


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://127.0.0.1:8080/", "http://[::1]:8080"])
def test_load_goes_to_loopback(url: str) -> None:
    assert check_loopback(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8080", "http://0.0.0.0:8080", "http://[2001:db8::1]/", "ftp://127.0.0.1", "127.0.0.1", ""]
)
def test_load_goes_nowhere_else(url: str) -> None:
    with pytest.raises(WrongUsage):
        check_loopback(url)


def test_it_waits_longer_every_time_but_never_long() -> None:
    assert 0.04 <= wait_before(0, "") <= 0.06
    assert wait_before(4, "") > wait_before(1, "")
    assert wait_before(100, "") <= WAIT_MAX_S * 1.2
    assert 1.6 <= wait_before(0, "2") <= 2.4
    assert wait_before(0, "900") <= WAIT_MAX_S * 1.2
    assert wait_before(0, "Wed, 21 Oct 2026 07:28:00 GMT") <= 0.06


async def test_never_more_work_at_once_than_it_may() -> None:
    present, most, done = 0, 0, list[int]()

    async def work(item: int) -> None:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await asyncio.sleep(0.001)
        present -= 1
        done.append(item)

    await do_each(range(40), work, at_once=4)
    assert most == 4
    assert sorted(done) == list(range(40))


async def test_the_first_refusal_ends_all_work_and_is_raised_as_itself() -> None:
    begun: list[int] = []

    async def work(item: int) -> None:
        begun.append(item)
        await asyncio.sleep(0)
        if item == 2:
            raise Refused("POST", "/movements", 422, {"code": "unknown_sku", "detail": "There is no product 2."})

    with pytest.raises(Refused, match="422 unknown_sku: There is no product 2"):
        await do_each(range(1_000), work, at_once=3)
    assert len(begun) < 10


def test_only_whole_pieces_are_moved() -> None:
    assert as_pieces("12") == 12
    with pytest.raises(Broken):
        as_pieces("0.5")


def test_a_latency_is_the_one_that_so_many_calls_did_not_exceed() -> None:
    summary = summarize_latencies({"GET /stock": [n / 1000 for n in range(100, 0, -1)], "POST /orders": [0.25]})
    assert summary["GET /stock"] == {"calls": 100, "p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "max_ms": 100}
    assert summary["POST /orders"] == {"calls": 1, "p50_ms": 250, "p95_ms": 250, "p99_ms": 250, "max_ms": 250}
