"""A crowd of clients that write as fast as they are let, and afterwards know exactly what must be in the books.

Each write has a key that is also its reference, so what became of it can be found without its answer. A client goes on
after a failure as after an answer: what was not answered is repeated with the same key at the end, as a careful client
does, and every write must then be there exactly once.
"""

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp

SKUS = tuple(f"CROWD-{number}" for number in range(6))
WAREHOUSE = "MAIN"
PLENTY = 1_000_000
ANSWER_LIMIT_S = 15
"""What a client must have been told something by, whatever is broken behind the port."""
_PAUSE_S = 0.02
_PAUSE_AFTER_FAILURE_S = 0.2
_WRITES_MAX = 4_000
_PATIENCE_S = 30
_REPEATED_AT_ONCE = 8


@dataclass
class Write:
    """One request that changes something."""

    path: str
    body: dict[str, Any]
    key: str
    answer: Any = None
    answered_at: float = 0


@dataclass
class Crowd:
    """Clients at work on `url`; their writes and what they were told."""

    url: str
    token: str
    orders_url: str
    session: aiohttp.ClientSession
    writes: list[Write] = field(default_factory=list[Write])
    refusals: list[str] = field(default_factory=list[str])
    """Answers 503, as `path code`."""
    lost: list[str] = field(default_factory=list[str])
    """Requests without any answer, as `path error`."""
    wrong: list[str] = field(default_factory=list[str])
    """Everything that no client may ever see."""
    slowest_s: float = 0
    _stop: bool = False

    @property
    def acknowledged(self) -> list[Write]:
        return [write for write in self.writes if write.answer is not None]

    async def settled(self, *, writes: int, limit_s: float = _PATIENCE_S) -> None:
        """Wait until so many more writes are acknowledged, of each kind at least one."""
        since = time.monotonic()
        async with asyncio.timeout(limit_s):
            while True:
                fresh = [write for write in self.writes if write.answered_at > since]
                if len(fresh) >= writes and len({write.path for write in fresh}) == len(_KINDS):
                    return
                await asyncio.sleep(0.05)

    async def repeat_unanswered(self) -> int:
        """Send again, with the same key, what was not answered; returns how many there were."""
        unanswered = [write for write in self.writes if write.answer is None]
        deadline = time.monotonic() + _PATIENCE_S
        gate = asyncio.Semaphore(_REPEATED_AT_ONCE)

        async def insist(write: Write) -> None:
            async with gate:
                while write.answer is None and not self.wrong:
                    assert time.monotonic() < deadline, f"{write.path} fails: {self.refusals[-3:]} {self.lost[-3:]}"
                    await self._send(write)

        await asyncio.gather(*map(insist, unanswered))
        return len(unanswered)

    async def check_replays(self) -> None:
        """A repeated key gets the first answer and says so."""
        sample = random.Random(7).sample(self.acknowledged, k=min(30, len(self.acknowledged)))
        for write in sample:
            status, headers, document = await self._post(write)
            assert (status, headers.get("Idempotent-Replay")) == (201, "true"), document
            assert document["id"] == write.answer["id"]

    async def check_books(self) -> None:
        """Every write is there exactly once under the id that was told, nothing else is, and the levels are their sum."""
        for path in _KINDS:
            found = collections.defaultdict[str, list[str]](list)
            for item in await self.read_all(path):
                found[item["reference"]].append(item["id"])
            wanted = {write.key: [write.answer["id"]] for write in self.writes if write.path == path}
            assert {key: found[key] for key in wanted} == wanted
            strangers = [key for key in found if key not in wanted and not _is_made_by_others(path, key)]
            assert not strangers, strangers
        levels = {level["sku"]: level for level in await self.read_all("/stock", warehouse=WAREHOUSE)}
        expected = self._sum_up()
        assert {sku: {name: levels[sku][name] for name in expected[sku]} for sku in SKUS} == expected

    async def read_all(self, path: str, **query: Any) -> list[Any]:
        items: list[Any] = []
        cursor = None
        for _ in range(100):
            parameters = query | {"limit": 1000} | ({"cursor": cursor} if cursor else {})
            async with self.session.get(self._address(path), params=parameters) as answer:
                document = await answer.json()
                assert answer.status == 200, document
            items += document["items"]
            cursor = document["next"]
            if cursor is None:
                return items
        raise AssertionError(f"{path} does not end")

    def _sum_up(self) -> dict[str, dict[str, str]]:
        expected = {sku: {"on_hand": PLENTY, "reserved": 0, "allocated": 0} for sku in SKUS}
        for write in self.writes:
            sign = -1 if write.body.get("type") == "issue" else 1
            for line in write.body["lines"]:
                expected[line["sku"]][_KINDS[write.path]] += sign * int(line["quantity"])
        return {sku: {name: str(value) for name, value in sums.items()} for sku, sums in expected.items()}

    async def work(self, number: int) -> None:
        """One client, until the crowd goes home."""
        draw = random.Random(number)
        while not self._stop and len(self.writes) < _WRITES_MAX:
            write = _make_write(draw)
            self.writes.append(write)
            await self._send(write)
            await asyncio.sleep(_PAUSE_S)

    def go_home(self) -> None:
        self._stop = True

    async def _send(self, write: Write) -> None:
        began = time.monotonic()
        try:
            status, headers, document = await self._post(write)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.lost.append(f"{write.path} {type(error).__name__}: {error}")
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        if status == 201:
            write.answer, write.answered_at = document, time.monotonic()
        elif status == 502 and document is None:
            self.lost.append(f"{write.path} 502 of the proxy")
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
        elif status == 503 and _is_problem(headers, document):
            self.refusals.append(f"{write.path} {document['code']}")
            await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
        else:
            self.wrong.append(f"{write.path} {status} {document}")

    async def _post(self, write: Write) -> tuple[int, Any, Any]:
        headers = {"Idempotency-Key": write.key}
        async with self.session.post(self._address(write.path), json=write.body, headers=headers) as answer:
            is_json = answer.content_type.endswith("json")
            return answer.status, answer.headers, await answer.json(content_type=None) if is_json else None

    def _address(self, path: str) -> str:
        return f"{self.orders_url if path == '/orders' else self.url}/api/v1{path}"


_KINDS = {"/movements": "on_hand", "/reservations": "reserved", "/orders": "allocated"}
"""What is written, and the quantity of a stock level that it changes."""


@contextlib.asynccontextmanager
async def crowd_at_work(
    url: str, email: str, password: str, *, clients: int = 16, orders_url: str | None = None
) -> AsyncGenerator[Crowd]:
    """A crowd in a shop that has plenty of everything; at the end the clients have stopped."""
    token = await sign_in(url, email, password)
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        await _open_shop(session, url)
        crowd = Crowd(url, token, orders_url or url, session)
        workers = [asyncio.create_task(crowd.work(number)) for number in range(clients)]
        try:
            yield crowd
        finally:
            crowd.go_home()
            await asyncio.gather(*workers)


async def sign_in(url: str, email: str, password: str) -> str:
    """An access token."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/api/v1/auth/login", json={"email": email, "password": password}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return (await answer.json())["access_token"]


async def _open_shop(session: aiohttp.ClientSession, url: str) -> None:
    stock = [{"sku": sku, "warehouse": WAREHOUSE, "quantity": str(PLENTY)} for sku in SKUS]
    for path, body in (
        ("/warehouses", {"code": WAREHOUSE, "name": "Main"}),
        ("/products/bulk", {"products": [{"sku": sku, "name": sku, "unit": "each"} for sku in SKUS]}),
        ("/movements", {"type": "receipt", "reference": "opening", "lines": stock}),
    ):
        headers = {"Idempotency-Key": str(uuid4())}
        async with session.post(f"{url}/api/v1{path}", json=body, headers=headers) as answer:
            assert answer.status in (200, 201), await answer.text()


def _make_write(draw: random.Random) -> Write:
    key = str(uuid4())
    path = draw.choice(tuple(_KINDS))
    lines: list[dict[str, str]] = [
        {"sku": sku, "quantity": str(draw.randint(1, 5))} for sku in draw.sample(SKUS, k=draw.randint(1, 3))
    ]
    body: dict[str, Any] = {"reference": key, "lines": lines}
    if path == "/orders":
        return Write(path, body | {"warehouse": WAREHOUSE, "allocate": "all"}, key)
    for line in lines:
        line["warehouse"] = WAREHOUSE
    if path == "/movements":
        body["type"] = draw.choice(("receipt", "issue"))
    return Write(path, body, key)


def _is_made_by_others(path: str, reference: str) -> bool:
    """The opening stock, and the reservations that orders have."""
    return reference == "opening" or (path == "/reservations" and reference.startswith("SO-"))


def _is_problem(headers: Any, document: Any) -> bool:
    return (
        headers["Content-Type"] == "application/problem+json"
        and headers["Retry-After"].isdigit()
        and {"type", "title", "status", "code", "detail", "request_id"} <= document.keys()
    )
