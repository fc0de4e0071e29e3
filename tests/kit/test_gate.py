"""The request gate: every answer has an identity, every body a bound, every failure the form of a problem document."""

import asyncio
import json
import re
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.kit.app import PROBLEM_SCHEMA
from tests.kit.probe import Running, Served
from tests.world import issue_token

LIMIT = 1_048_576


def check_problem(answer, status: int, code: str) -> dict:
    """The answer is a complete problem document with this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["code"] == code, document
    assert document["status"] == status
    assert set(PROBLEM_SCHEMA["required"]) <= set(document)
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


async def chunks_of(size: int):
    for _ in range(size // 65_536 + 1):
        yield b"x" * 65_536


async def test_a_body_that_says_it_is_too_large_is_refused_unread(probe: Running):
    headers = {"Content-Length": str(LIMIT + 1)}
    answer = await probe.ask("POST", "/api/v1/probes", headers=headers, content=b"{}")
    assert check_problem(answer, 413, "body_too_large")["limit_bytes"] == LIMIT


async def test_a_body_in_chunks_is_refused_when_it_grows_too_large(probe: Running):
    answer = await probe.ask("POST", "/api/v1/probes", content=chunks_of(LIMIT))
    assert check_problem(answer, 413, "body_too_large")["limit_bytes"] == LIMIT


async def test_a_body_in_chunks_is_refused_over_a_real_connection(served_probe: Served):
    answer = await served_probe.ask("POST", "/api/v1/probes", content=chunks_of(LIMIT))
    check_problem(answer, 413, "body_too_large")


async def test_the_largest_body_allowed_is_read(probe: Running):
    frame = len('{"text":""}')
    body = '{"text":"' + "x" * (LIMIT - frame) + '"}'
    answer = await probe.ask("POST", "/api/v1/probes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text[:200]


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":"\xff\xfe"}',
        b"\x00\x01\x02",
        b"{",
        b"[" * 100_000,
        b'{"text":' * 100_000,
        b'{"text":"a"} trailing',
        b'{"text":' + b"9" * 5_000 + b"}",
    ],
    ids=["invalid UTF-8", "binary", "cut short", "deep list", "deep object", "trailing", "endless number"],
)
async def test_a_body_that_is_not_json_is_refused(probe: Running, body: bytes):
    answer = await probe.ask(
        "POST", "/api/v1/probes", content=body, headers={"Content-Type": "application/json", "Idempotency-Key": "k"}
    )
    check_problem(answer, 400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ('{"text":"\\ud800"}', "/text"),
        ('{"text":"a","\\ud800":1}', ""),
        ('{"text":"a","a/b~c":1}', "/a~1b~0c"),
        ('{"text":["a"]}', "/text"),
        ('{"text":null}', "/text"),
        ('{"text":"a","pause_s":NaN,"quantity":NaN}', "/quantity"),
        ("[]", ""),
        ("null", ""),
        ('"text"', ""),
    ],
)
async def test_a_senseless_body_is_refused_with_a_pointer(probe: Running, body: str, pointer: str):
    answer = await probe.ask("POST", "/api/v1/probes", content=body, headers={"Content-Type": "application/json"})
    document = check_problem(answer, 422, "invalid_request")
    assert document["errors"][0]["pointer"] == pointer


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(repr))
async def test_no_body_breaks_it(probe: Running, body: bytes | str):
    answer = await probe.ask("POST", "/api/v1/probes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] in ("invalid_json", "invalid_request")


@pytest.mark.parametrize("path", ["/api/v1/probes/texts/a%00b", "/api/v1/probes/texts/a?search=%00", "/%00"])
async def test_an_address_with_a_nul_is_refused(probe: Running, path: str):
    check_problem(await probe.ask("GET", path), 400, "invalid_address")


@pytest.mark.parametrize("path", ["/api/v1/probes/texts/%FF", "/api/v1/probes/texts/a?search=%ff%fe", "/%F0%9F%92%A9"])
async def test_an_address_that_is_not_utf8_is_no_failure_of_ours(probe: Running, path: str):
    assert (await probe.ask("GET", path)).status_code in (200, 404)


async def test_a_raw_nul_in_the_request_line_is_refused_by_the_server(served_probe: Served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served_probe.port)
    writer.write(b"GET /api/v1/probes/texts/a\0b HTTP/1.1\r\nHost: probe\r\n\r\n")
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert answer.split()[1:2] in ([b"400"], []), answer


async def test_a_request_id_is_kept_when_it_is_one_and_replaced_when_not(probe: Running):
    kept = await probe.ask("GET", "/health", headers={"X-Request-ID": "order-4711_a.b"})
    assert kept.headers["x-request-id"] == "order-4711_a.b"
    for given_id in ("", "a b", "a" * 65, "ä", "<script>", "a,b", "{}"):
        answer = await probe.ask("GET", "/health", headers={"X-Request-ID": given_id.encode("utf-8")})
        assert UUID(answer.headers["x-request-id"]).version == 7, given_id


async def test_every_request_without_an_id_gets_one_of_its_own(probe: Running):
    answers = await asyncio.gather(*(probe.ask("GET", "/health") for _ in range(20)))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20


async def test_every_answer_forbids_guessing_of_its_type(probe: Running):
    for path in ("/health", "/api/v1/probes", "/api/v1/nothing", "/api/v1/probes/crash"):
        answer = await probe.ask("GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff", path


async def test_an_unknown_address_is_a_problem(probe: Running):
    for path in ("/", "/api/v1/nothing", "/api/v1/probes/texts/a/b", "/docs", "/redoc"):
        check_problem(await probe.ask("GET", path), 404, "no_such_route")


async def test_a_wrong_method_is_a_problem_that_names_the_right_ones(probe: Running):
    answer = await probe.ask("DELETE", "/api/v1/probes/crash")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"


async def test_an_unexpected_failure_leaks_nothing(probe: Running):
    answer = await probe.ask("GET", "/api/v1/probes/crash")
    check_problem(answer, 500, "internal_error")
    for secret in ("private", "RuntimeError", "Traceback", "probe.py"):
        assert secret not in answer.text


async def test_it_says_what_is_missing_when_nobody_signs_in(probe: Running):
    answer = await probe.http.get("/api/v1/probes")
    check_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_it_names_the_permission_that_is_missing(probe: Running):
    headers = {"Authorization": f"Bearer {issue_token(())}"}
    answer = await probe.http.get("/api/v1/probes", headers=headers)
    assert check_problem(answer, 403, "forbidden")["needs"] == "stock:read"


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=ten", "limit=", "cursor=" + "a" * 2_001])
async def test_a_senseless_query_is_refused_with_its_name(probe: Running, query: str):
    document = check_problem(await probe.ask("GET", f"/api/v1/probes?{query}"), 422, "invalid_request")
    assert document["errors"][0]["pointer"] == "query/" + query.partition("=")[0]


async def test_many_errors_are_told_in_a_bounded_answer(probe: Running):
    answer = await probe.ask("POST", "/api/v1/probes", {f"unknown{number}": 1 for number in range(500)})
    document = check_problem(answer, 422, "invalid_request")
    assert len(document["errors"]) == 20
    assert "more)" in document["detail"]


async def read_metric(probe: Running, name: str, **labels: str) -> float:
    text = (await probe.http.get("/metrics")).text
    pattern = re.compile(rf"^{name}{{(.*)}} (\S+)$", re.MULTILINE)
    return sum(
        float(value)
        for found, value in pattern.findall(text)
        if labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found)).items()
    )


async def test_metrics_name_the_template_of_the_route_and_never_the_path(probe: Running):
    labels = {"service": "probe-service", "method": "GET", "route": "/api/v1/probes/texts/{text}"}
    before = await read_metric(probe, "http_requests_total", status="200", **labels)
    for text in ("alpha", "beta"):
        await probe.ask("GET", f"/api/v1/probes/texts/{text}")
    assert await read_metric(probe, "http_requests_total", status="200", **labels) == before + 2
    assert await read_metric(probe, "http_request_duration_seconds_count", **labels) == before + 2
    await probe.ask("GET", "/api/v1/wp-login.php")
    await probe.ask("BREW", "/api/v1/probes/crash")
    text = (await probe.http.get("/metrics")).text
    for raw in ("alpha", "beta", "wp-login", "BREW"):
        assert raw not in text
    assert await read_metric(probe, "http_requests_total", route="unmatched", status="404") >= 1
    assert await read_metric(probe, "http_requests_total", method="OTHER", status="405") >= 1


async def test_requests_under_way_are_counted_and_let_go(probe: Running):
    waiting = asyncio.create_task(probe.ask("GET", "/api/v1/probes/sleep?seconds=1.5"))
    await asyncio.sleep(0.2)
    # The request for the metrics itself is one, too.
    assert await read_metric(probe, "http_requests_in_progress", service="probe-service") == 2
    assert (await waiting).status_code == 200
    await probe.ask("GET", "/api/v1/probes/crash")
    assert await read_metric(probe, "http_requests_in_progress", service="probe-service") == 1


async def test_the_metrics_that_dashboards_rely_on_are_there(probe: Running):
    await probe.context.database.watch()
    text = (await probe.http.get("/metrics")).text
    for name in (
        "http_requests_total", "http_request_duration_seconds_bucket", "http_requests_in_progress",
        'db_pool_connections{service="probe-service",state="idle"}', "db_query_duration_seconds_bucket",
    ):  # fmt: skip
        assert name in text


async def test_it_is_alive_and_ready(probe: Running):
    alive = await probe.http.get("/health")
    ready = await probe.http.get("/health/ready")
    assert (alive.status_code, alive.json()["status"]) == (200, "alive")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reason": None})


async def test_a_deadline_that_the_caller_names_is_read_and_nonsense_ignored(probe: Running):
    for text in ("0", "-1", "abc", "9" * 50, "1.5", "²"):
        answer = await probe.ask("GET", "/api/v1/probes", headers={"X-Stockade-Deadline-Ms": text.encode("utf-8")})
        assert answer.status_code == 200, text


async def test_a_problem_is_json_that_any_client_reads(probe: Running):
    answer = await probe.ask("POST", "/api/v1/probes", {"text": "refuse"})
    document = check_problem(answer, 409, "text_refused")
    assert json.loads(answer.content) == document
    assert document["lines"] == [{"text": "refuse"}]
