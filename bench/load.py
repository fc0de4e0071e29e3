"""A closed-loop HTTP client: each kept connection sends its next request when the answer to its last one is complete.

It shares two cores with what it measures, so it does nothing per request but find the end of the answer, read the status
and note the time. A connection that breaks is not opened again: it is counted, and the row is invalid.
"""

import asyncio
import contextlib
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from bench.errors import BenchError
from bench.meters import Meter, Reading

MakeRequest = Callable[[], bytes]

_CONNECT_TIMEOUT_S = 10
_TAIL_TIMEOUT_S = 40
_HEAD_BYTES_MAX = 16_384
_ANSWER_BYTES_MAX = 4 * 1_048_576
_SHOWN_BYTES = 400


@dataclass
class Outcome:
    """What came back. Times are of the measured window; statuses are of everything, from the first request to the last."""

    before: Reading
    after: Reading
    times_s: "array[float]"
    statuses: Counter[int] = field(default_factory=Counter[int])
    broken: int = 0
    first_unexpected: str = ""

    @property
    def rate(self) -> float:
        return len(self.times_s) / (self.after.at - self.before.at)


class Load:
    """One run of some connections against a server on this machine."""

    def __init__(self, port: int, make_request: MakeRequest, *, connections: int, expect: int, meter: Meter) -> None:
        self.make_request = make_request
        self.expect = expect
        self.is_running = False
        self.times_s = array("d")
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.first_unexpected = ""
        self._port = port
        self._count = connections
        self._meter = meter

    async def run(self, *, warm_up_s: float, seconds: float) -> Outcome:
        """Warm up, measure, and wait for the last answers. Raises BenchError when the server cannot be reached."""
        connections = await self._connect()
        try:
            self.is_running = True
            for connection in connections:
                connection.send()
            await asyncio.sleep(warm_up_s)
            before = self._begin_window()
            await asyncio.sleep(seconds)
            times_s, after = self.times_s, self._meter.read()
            self.is_running, self.times_s = False, array("d")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*(one.closed for one in connections)), _TAIL_TIMEOUT_S)
        finally:
            self.is_running = False
            for connection in connections:
                connection.abort()
        unanswered = sum(connection.is_waiting for connection in connections)
        return Outcome(before, after, times_s, self.statuses, self.broken + unanswered, self.first_unexpected)

    def note(self, status: int, seconds: float, answer: bytes) -> None:
        self.times_s.append(seconds)
        self.statuses[status] += 1
        if status != self.expect and not self.first_unexpected:
            self.first_unexpected = answer[:_SHOWN_BYTES].decode(errors="replace")

    def note_broken(self, reason: str) -> None:
        self.broken += 1
        self.first_unexpected = self.first_unexpected or reason

    def _begin_window(self) -> Reading:
        self.times_s = array("d")
        return self._meter.read()

    async def _connect(self) -> "list[_Connection]":
        loop = asyncio.get_running_loop()
        connections: list[_Connection] = []
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                for _ in range(self._count):
                    _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
                    connections.append(connection)
        except (OSError, TimeoutError) as error:
            raise BenchError(f"the server on port {self._port} takes no connection: {error or 'no answer'}") from error
        return connections


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_waiting = False
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._length = 0
        self._status = 0
        self._began = 0.0

    def send(self) -> None:
        """Send the next request."""
        assert self._transport is not None, "connected"
        request = self._load.make_request()
        self.is_waiting = True
        self._began = time.perf_counter()
        self._transport.write(request)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, and not their base class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._load.is_running:
            self.is_waiting = False
            self._load.note_broken(f"the server closed a connection ({exc or 'without an error'})")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._length and not self._read_head():
            return
        if len(self._buffer) >= self._length:
            self._finish()

    def _read_head(self) -> bool:
        """Find status and length once the head is complete; False while it is not."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                self.abort()
            return False
        head = self._buffer[:end].lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        body = int(rest.partition(b"\r\n")[0]) if found else _ANSWER_BYTES_MAX
        if body >= _ANSWER_BYTES_MAX:
            # Without a bounded length there is no telling where the answer ends; connection_lost counts it.
            self.abort()
            return False
        self._status = int(head[9:12])
        self._length = end + 4 + body
        return True

    def _finish(self) -> None:
        now = time.perf_counter()
        self._load.note(self._status, now - self._began, self._buffer)
        self._buffer, self._length, self.is_waiting = b"", 0, False
        if self._load.is_running:
            self.send()
        elif self._transport is not None:
            self._transport.close()
