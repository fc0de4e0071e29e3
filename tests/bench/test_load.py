"""The load client against a server on loopback: it understands answers however they arrive, and overlooks no failure."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncGenerator, Callable

import httptools

from bench import traffic
from bench.load import Load, Outcome
from bench.meters import Meter

REQUEST = b"GET /stock HTTP/1.1\r\nHost: bench\r\n\r\n"
Answer = Callable[[int], tuple[bytes, ...]]


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncGenerator[int]:
    """A server that gives the pieces of `answer(n)`, one write each, to its nth request; no piece closes the connection."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                count += 1
                pieces = answer(count)
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0)
                if not pieces:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def reply(status: int = 200, body: bytes = b"{}") -> tuple[bytes, ...]:
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head.encode() + body,)


async def run(answer: Answer, *, connections: int = 3, expect: int = 200) -> Outcome:
    async with serving(answer) as port:
        meter = Meter(postgres=os.getpid())
        load = Load(port, lambda: REQUEST, connections=connections, expect=expect, meter=meter)
        return await load.run(warm_up_s=0.05, seconds=0.2)


async def test_it_counts_every_answer_but_times_only_those_of_its_window():
    outcome = await run(lambda _: reply())
    assert set(outcome.statuses) == {200}
    assert 0 < len(outcome.times_s) < outcome.statuses[200]
    assert outcome.broken == 0
    window_s = outcome.after.at - outcome.before.at
    assert outcome.rate * window_s - len(outcome.times_s) < 1e-6
    assert 0.2 <= window_s < 1


async def test_an_answer_may_arrive_in_any_pieces():
    whole = reply(body=b'{"items":[]}')[0]

    def in_pieces(number: int) -> tuple[bytes, ...]:
        cuts = sorted(random.Random(number).sample(range(1, len(whole)), 3))
        return tuple(whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True))

    outcome = await run(in_pieces)
    assert outcome.statuses[200] > 10
    assert (set(outcome.statuses), outcome.broken) == ({200}, 0)


async def test_an_unexpected_status_is_counted_and_the_first_one_shown():
    outcome = await run(lambda number: reply(503, b'{"code":"overloaded"}') if number % 5 == 0 else reply())
    assert outcome.statuses[503] > 0
    assert "overloaded" in outcome.first_unexpected


async def test_a_connection_that_breaks_is_counted_and_not_opened_again():
    outcome = await run(lambda number: () if number in (7, 8) else reply())
    assert outcome.broken == 2
    assert "closed a connection" in outcome.first_unexpected


async def test_an_answer_without_a_length_is_no_answer():
    outcome = await run(lambda _: (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",))
    assert (outcome.broken, outcome.statuses[200]) == (3, 0)


class Parsed:
    """A request as a real parser sees it."""

    def __init__(self, request: bytes) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body = self.target = b""
        self.complete = 0
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(request)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def test_requests_are_whole_and_every_post_has_a_key_of_its_own():
    for make in (
        traffic.reserve_one("t", skus=None, seed=1),
        traffic.reserve_one("t", skus=999, seed=1),
        traffic.place_order("t", skus=50, seed=1),
    ):
        requests = [Parsed(make()) for _ in range(200)]
        assert {request.complete for request in requests} == {1}
        assert {int(request.headers[b"content-length"]) - len(request.body) for request in requests} == {0}
        assert len({request.headers[b"idempotency-key"] for request in requests}) == 200
        assert {request.headers[b"authorization"] for request in requests} == {b"Bearer t"}
    read = Parsed(traffic.read_stock("t", skus=50, seed=1)())
    assert (read.complete, read.method) == (1, b"GET")
    assert read.target.startswith(b"/api/v1/stock?sku=B-0000")


def test_the_three_numbers_of_an_order_differ_and_reach_every_sku():
    generator = random.Random(1)
    drawn = [traffic.draw_numbers(generator, 50) for _ in range(5_000)]
    assert all(len(set(numbers)) == 3 for numbers in drawn)
    assert {number for numbers in drawn for number in numbers} == set(range(1, 51))
