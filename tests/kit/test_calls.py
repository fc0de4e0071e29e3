"""Calls between services: the same in process and over HTTP, bounded by the deadline, repeated only where that is safe."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fastapi import APIRouter, Request, Response

from stockade.kit import calls
from stockade.kit.auth import Actor, require
from stockade.kit.calls import InProcess, Network, ServiceClient, deadline
from stockade.kit.errors import (
    Conflict,
    Invalid,
    KeyRequired,
    NotFound,
    Refusal,
    Stale,
    TooLarge,
    TooMany,
    Unavailable,
)
from stockade.kit.logs import request_id, trace_id
from tests.conftest import PASSWORDS
from tests.kit.probe import SERVICE, Served, make_context, make_settings, served
from tests.world import issue_token

router = APIRouter(prefix="/api/v1/targets")


@dataclass
class Target:
    """What the target is told to do next, and what it has seen."""

    plan: list[Any] = field(default_factory=list)
    """Refusals to raise, seconds to take, or texts to answer, one a request; after the last one it answers well."""
    seen: list[Request] = field(default_factory=list)


target = Target()
REFUSALS: dict[str, Refusal] = {
    "conflict": Conflict("Not enough.", code="insufficient_stock", lines=[{"sku": "A", "available": "1"}]),
    "invalid": Invalid.field("/lines/0/sku", "unknown_sku", "There is no product A."),
    "missing": NotFound("There is no such thing.", code="thing_not_found"),
    "stale": Stale("Read it again.", current='"2"'),
    "large": TooLarge("Too much.", limit=7),
    "key": KeyRequired("Send a key.", code="idempotency_key_required"),
    "many": TooMany("Slowly.", code="slow_down", wait_s=3),
}


@router.api_route("/work", methods=["GET", "POST"])
async def work(request: Request) -> Any:
    target.seen.append(request)
    step = target.plan.pop(0) if target.plan else None
    if isinstance(step, float):
        await asyncio.sleep(step)
    elif isinstance(step, Response):
        return step
    elif isinstance(step, Refusal):
        raise step
    elif isinstance(step, tuple):
        await asyncio.sleep(step[0])
        raise step[1]
    return {
        "left_ms": round((deadline.get() - time.monotonic()) * 1000),
        "request": request_id.get(),
        "trace": trace_id.get(),
    }


@router.get("/refuse/{name}")
async def refuse(name: str) -> None:
    raise REFUSALS[name]


@router.post("/me")
async def me(request: Request, actor: Actor = require("stock:read")) -> dict[str, Any]:
    return {
        "responsible": actor.responsible,
        "key": request.headers.get("idempotency-key"),
        "body": await request.json(),
    }


@router.get("/text/{text}")
async def text(text: str, request: Request) -> dict[str, Any]:
    return {"text": text, "search": request.query_params.getlist("q")}


@pytest.fixture(autouse=True)
def fresh_target() -> None:
    target.plan, target.seen = [], []


@contextlib.contextmanager
def within(seconds: float) -> Generator[None]:
    """As in a request that must be answered by then."""
    before = deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        deadline.reset(before)


async def fetch_token() -> str:
    return issue_token((), kind="service", subject="order-service", permissions=["stock:read"])


@pytest.fixture(scope="module")
async def serving(module_database_url: str) -> AsyncGenerator[Served]:
    service = replace(SERVICE, routers=(router,))
    async with served(make_context(make_settings(module_database_url, PASSWORDS), service=service)) as opened:
        yield opened


@pytest.fixture(params=["in process", "over HTTP"])
async def client(serving: Served, request: pytest.FixtureRequest) -> AsyncGenerator[ServiceClient]:
    transport = (
        InProcess(lambda: serving.app)
        if request.param == "in process"
        else Network(f"http://127.0.0.1:{serving.port}/")
    )
    made = ServiceClient(service="order-service", target="target", transport=transport, fetch_token=fetch_token)
    yield made
    await made.close()


WORK = "/api/v1/targets/work"
AWAY = Unavailable("Not now.", code="database_unavailable")


@contextlib.contextmanager
def takes_less_than(seconds: float) -> Generator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


async def test_a_get_is_repeated_until_the_target_is_back(client: ServiceClient):
    target.plan = [AWAY, AWAY]
    assert "left_ms" in await client.get(WORK)
    assert len(target.seen) == 3


async def test_it_gives_up_after_three_attempts(client: ServiceClient):
    target.plan = [AWAY] * 9
    with pytest.raises(Unavailable) as caught:
        await client.get(WORK)
    assert (caught.value.code, len(target.seen)) == ("service_unavailable", 3)
    assert caught.value.headers["Retry-After"] == "2"


async def test_a_post_without_a_key_is_sent_once(client: ServiceClient):
    target.plan = [AWAY]
    with pytest.raises(Unavailable):
        await client.post(WORK, {})
    assert len(target.seen) == 1


async def test_a_post_with_a_key_is_repeated_with_the_same_key(client: ServiceClient):
    target.plan = [AWAY, AWAY]
    await client.post(WORK, {"a": 1}, key="once-and-only")
    assert [request.headers["idempotency-key"] for request in target.seen] == ["once-and-only"] * 3


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_of_the_target_arrives_as_the_same_refusal(client: ServiceClient, name: str):
    expected = REFUSALS[name]
    with pytest.raises(Refusal) as caught:
        await client.get(f"/api/v1/targets/refuse/{name}")
    assert type(caught.value) is type(expected)
    same = [(each.status, each.code, each.detail, each.errors) for each in (caught.value, expected)]
    assert same[0] == same[1]
    for member, value in expected.data.items():
        if member != "request_id":
            assert caught.value.data[member] == value


@pytest.mark.parametrize("status", [500, 418, 302])
async def test_what_cannot_be_understood_is_as_good_as_no_answer(client: ServiceClient, status: int):
    target.plan = [Response("<html>proxy</html>", status_code=status, headers={"Location": "http://127.0.0.1:1/"})]
    with pytest.raises(Unavailable):
        await client.get(WORK)


async def test_an_answer_that_is_no_json_is_no_answer(client: ServiceClient):
    target.plan = [Response("<html>welcome</html>")]
    with pytest.raises(Unavailable) as caught:
        await client.get(WORK)
    assert caught.value.code == "service_unavailable"


async def test_an_empty_answer_is_none(client: ServiceClient):
    target.plan = [Response(status_code=204)]
    assert await client.get(WORK) is None


async def test_request_and_trace_go_along_and_nothing_comes_back(client: ServiceClient):
    request_id.set("order-4711")
    trace_id.set("0af7651916cd43dd8448eb211c80319c")
    answer = await client.get(WORK)
    assert (answer["request"], answer["trace"]) == ("order-4711", "0af7651916cd43dd8448eb211c80319c")
    assert (request_id.get(), trace_id.get()) == ("order-4711", "0af7651916cd43dd8448eb211c80319c")
    assert deadline.get() == float("inf")


async def test_who_asked_and_for_whom_goes_along(client: ServiceClient):
    answer = await client.post("/api/v1/targets/me", {"a": [1]}, key="k", on_behalf_of="ann")
    assert answer == {"responsible": "ann", "key": "k", "body": {"a": [1]}}
    assert (await client.post("/api/v1/targets/me", {}))["responsible"] == "order-service"


@pytest.mark.parametrize("sent", ["plain", "a%20b", "%E8%AA%9E", "50%25", "a%2Bb"])
async def test_an_address_means_the_same_over_every_transport(client: ServiceClient, sent: str):
    read = {"plain": "plain", "a%20b": "a b", "%E8%AA%9E": "語", "50%25": "50%", "a%2Bb": "a+b"}[sent]
    answer = await client.get(f"/api/v1/targets/text/{sent}", query={"q": ["a b", "ä&=", "1"]})
    assert answer == {"text": read, "search": ["a b", "ä&=", "1"]}


async def test_what_is_left_of_the_deadline_goes_along(client: ServiceClient):
    with within(3):
        assert 2_000 < (await client.get(WORK))["left_ms"] <= 3_000
    assert 9_000 < (await client.get(WORK))["left_ms"] <= 10_000


async def test_a_deadline_that_is_over_sends_nothing(client: ServiceClient):
    with within(0), pytest.raises(Unavailable) as caught:
        await client.get(WORK)
    assert (caught.value.code, target.seen) == ("deadline_exceeded", [])


async def test_a_target_that_hangs_is_left_when_the_time_is_over(client: ServiceClient):
    target.plan = [4.0]
    with within(0.3), takes_less_than(2), pytest.raises(Unavailable):
        await client.get(WORK)


async def test_repeating_does_not_stretch_the_deadline(client: ServiceClient):
    target.plan = [(0.6, AWAY), 4.0, 4.0]
    with within(1.0), takes_less_than(1.45), pytest.raises(Unavailable):
        await client.get(WORK)
    assert len(target.seen) == 2


async def test_the_breaker_opens_after_failures_in_a_row_and_closes_again(
    client: ServiceClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "_BREAK_FOR_S", 0.4)
    target.plan = [AWAY] * 5
    for _ in range(5):
        with pytest.raises(Unavailable):
            await client.post(WORK, {})
    with takes_less_than(0.35):
        for _ in range(20):
            with pytest.raises(Unavailable, match="does not answer at present"):
                await client.post(WORK, {})
    assert len(target.seen) == 5
    await asyncio.sleep(0.5)
    await client.post(WORK, {})
    await asyncio.gather(*(client.post(WORK, {}) for _ in range(5)))
    assert len(target.seen) == 11


async def test_only_one_call_finds_out_whether_the_target_is_back(
    client: ServiceClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calls, "_BREAK_FOR_S", 0.4)
    target.plan = [AWAY] * 5
    for _ in range(5):
        with pytest.raises(Unavailable):
            await client.post(WORK, {})
    await asyncio.sleep(0.5)
    target.plan = [0.2]
    outcomes = await asyncio.gather(*(client.post(WORK, {}) for _ in range(10)), return_exceptions=True)
    assert len(target.seen) == 6
    assert [isinstance(outcome, Unavailable) for outcome in outcomes].count(False) == 1
    await client.post(WORK, {})


async def test_a_success_in_between_starts_the_count_anew(client: ServiceClient):
    for _ in range(3):
        target.plan = [AWAY] * 4
        for _ in range(4):
            with pytest.raises(Unavailable):
                await client.post(WORK, {})
        await client.post(WORK, {})


async def test_a_refusal_is_an_answer_and_not_a_failure(client: ServiceClient):
    target.plan = [REFUSALS["conflict"]] * 12
    for _ in range(12):
        with pytest.raises(Conflict):
            await client.get(WORK)
    assert len(target.seen) == 12


async def test_callers_in_a_hurry_do_not_open_the_breaker_for_others(client: ServiceClient):
    target.plan = [0.3] * 8
    for _ in range(8):
        with within(0.01), contextlib.suppress(Unavailable):
            await client.post(WORK, {})
    target.plan = []
    assert "left_ms" in await client.post(WORK, {})


async def test_a_closed_port_is_no_answer():
    gone = ServiceClient(service="a", target="b", transport=Network("http://127.0.0.1:1"), fetch_token=None)
    with takes_less_than(3), pytest.raises(Unavailable) as caught:
        await gone.get(WORK)
    assert caught.value.code == "service_unavailable"
    await gone.close()


async def test_a_connection_that_is_cut_is_no_answer_and_a_get_survives_it():
    """A server that closes the first connection without a word, and answers the second."""
    connections = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections[0] += 1
        await reader.readuntil(b"\r\n\r\n")
        if connections[0] > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = ServiceClient(service="a", target="b", transport=Network(f"http://127.0.0.1:{port}"), fetch_token=None)
    assert await client.get("/") is True
    assert connections == [2]
    await client.close()
    server.close()


async def test_that_our_own_token_is_refused_is_not_the_fault_of_who_asked(serving: Served):
    """The person has signed in; that the service has not is nothing that signing in again would help."""

    async def fetch_bad_token() -> str:
        return "a.b.c"

    client = ServiceClient(
        service="order-service", target="target", transport=InProcess(lambda: serving.app), fetch_token=fetch_bad_token
    )
    with pytest.raises(Unavailable) as caught:
        await client.post("/api/v1/targets/me", {})
    assert caught.value.code == "service_unavailable"
