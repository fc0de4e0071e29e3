"""Calls from one service to another: the same request in process or over HTTP, chosen by configuration.

Every call carries the caller's own short token, the request id, the trace and what is left of the deadline. Only calls
that are safe to repeat (GET, or with an Idempotency-Key) are sent again after a failure, a bounded number of times, and
a target that keeps failing is left alone for a moment. A refusal of the target arrives here as the same refusal.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlencode

import aiohttp
import stamina

from stockade.kit.errors import REFUSAL_OF_STATUS, Refusal, Unauthenticated, Unavailable
from stockade.kit.logs import request_id, trace_id
from stockade.kit.metrics import CALLS

AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))
"""When the present request must be answered, on the monotonic clock."""

T = TypeVar("T")

_TIMEOUT_S = 10.0
_ATTEMPTS_MAX = 3
_BREAK_AFTER = 5
_BREAK_FOR_S = 2.0
_PATIENCE_S = 1.0
"""Who waited less than this has learnt nothing about the target."""


class _Failed(Exception):
    """The call may not have been carried out: no connection, a time-out, or an answer 502, 503 or 504."""


@dataclass(frozen=True)
class Outgoing:
    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes


class Transport(Protocol):
    """Carries one request; raises TimeoutError, OSError or aiohttp.ClientError when it could not."""

    async def send(self, request: Outgoing) -> Answer: ...

    async def close(self) -> None: ...


class InProcess:
    """Calls the application object of a service that lives in this process."""

    def __init__(self, find_app: Callable[[], AsgiApp]) -> None:
        self._find_app = find_app

    async def send(self, request: Outgoing) -> Answer:
        path, _, query = request.target.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "http",
            "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in request.headers.items()],
            "server": ("in-process", 80), "client": ("in-process", 0),
        }  # fmt: skip
        parts: list[bytes] = []
        status = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        # A task of its own, so that what the callee sets in context variables does not reach the caller.
        await asyncio.create_task(self._find_app()(scope, receive, send))  # pyright: ignore[reportArgumentType]
        return Answer(status, b"".join(parts))

    async def close(self) -> None:
        return None


class Network:
    """Calls a service over HTTP, with one pool of connections for the process."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Outgoing) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, connect=3))
        async with self._session.request(
            request.method,
            self._base_url + request.target,
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
        ) as response:
            return Answer(response.status, await response.read())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


@dataclass
class Breaker:
    """Opens after some failures in a row; lets one call through after a while to see whether the target is back."""

    failures: int = 0
    closed_at: float = 0.0

    def check(self, target: str) -> None:
        if self.failures < _BREAK_AFTER:
            return
        if time.monotonic() < self.closed_at:
            raise Unavailable(
                f"{target} does not answer at present; try again.", code="service_unavailable", retry_after_s=2
            )
        self.closed_at = time.monotonic() + _BREAK_FOR_S  # For all others, until this one knows.

    def note(self, *, succeeded: bool) -> None:
        self.failures = 0 if succeeded else self.failures + 1
        if self.failures >= _BREAK_AFTER:
            self.closed_at = time.monotonic() + _BREAK_FOR_S


FetchToken = Callable[[], Awaitable[str]]


class ServiceClient:
    """How `service` calls `target`."""

    def __init__(self, *, service: str, target: str, transport: Transport, fetch_token: FetchToken | None) -> None:
        self.service = service
        self.target = target
        self._transport = transport
        self._fetch_token = fetch_token
        self._breaker = Breaker()

    async def get(self, path: str, *, query: Mapping[str, Any] | None = None, timeout_s: float = _TIMEOUT_S) -> Any:
        """The JSON of an answer 2xx. Raises the target's refusal, or Unavailable."""
        target = path + ("?" + urlencode(query, doseq=True) if query else "")
        return await self._call("GET", target, b"", key=None, on_behalf_of=None, timeout_s=timeout_s)

    async def post(
        self,
        path: str,
        body: Any,
        *,
        key: str | None = None,
        on_behalf_of: str | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        """The JSON of an answer 2xx. Give `key` (Idempotency-Key) wherever the target takes one: only then is it retried."""
        encoded = json.dumps(body, default=str).encode()
        return await self._call("POST", path, encoded, key=key, on_behalf_of=on_behalf_of, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._transport.close()

    async def _call(
        self, method: str, target: str, body: bytes, *, key: str | None, on_behalf_of: str | None, timeout_s: float
    ) -> Any:
        until = min(time.monotonic() + timeout_s, deadline.get())
        attempts = _ATTEMPTS_MAX if method == "GET" or key else 1
        try:
            async for attempt in stamina.retry_context(
                on=_Failed, attempts=attempts, timeout=timeout_s, wait_initial=0.05, wait_max=0.5, wait_jitter=0.05
            ):
                with attempt:
                    if (left_s := until - time.monotonic()) <= 0:
                        raise Unavailable("The time for this request is over; try again.", code="deadline_exceeded")
                    self._breaker.check(self.target)
                    return _read(await self._send(method, target, body, key, on_behalf_of, left_s))
        except _Failed as error:
            CALLS.labels(self.service, self.target, "failed").inc()
            raise Unavailable(
                f"{self.target} does not answer; try again with the same Idempotency-Key.",
                code="service_unavailable",
                retry_after_s=2,
            ) from error
        raise AssertionError("a retry context either returns or raises")

    async def _send(
        self, method: str, target: str, body: bytes, key: str | None, on_behalf_of: str | None, timeout_s: float
    ) -> Answer:
        headers = {
            "X-Request-ID": request_id.get(),
            "X-Stockade-Deadline-Ms": str(int(timeout_s * 1000)),
            "traceparent": f"00-{trace_id.get() or '0' * 31 + '1'}-{'0' * 15}1-00",
        }
        if self._fetch_token is not None:
            headers["Authorization"] = f"Bearer {await self._fetch_token()}"
        if body:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Idempotency-Key"] = key
        if on_behalf_of:
            headers["X-Stockade-On-Behalf-Of"] = on_behalf_of
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._transport.send(Outgoing(method, target, headers, body))
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            if timeout_s >= _PATIENCE_S or not isinstance(error, TimeoutError):
                self._breaker.note(succeeded=False)
            raise _Failed from error
        self._breaker.note(succeeded=answer.status not in (502, 503, 504))
        if answer.status in (502, 503, 504):
            raise _Failed
        CALLS.labels(self.service, self.target, "answered").inc()
        return answer


async def for_everybody(fetch: Callable[[], Awaitable[T]]) -> T:
    """Fetch what many requests share, without the deadline of the one that needs it first: anybody can name a short one."""
    before = deadline.set(float("inf"))
    try:
        return await fetch()
    finally:
        deadline.reset(before)


class ServiceTokens:
    """The short token of this service, fetched from the user-service against the service's own secret and renewed in time."""

    def __init__(self, *, service: str, client: ServiceClient, read_secret: Callable[[], str]) -> None:
        self._service = service
        self._client = client
        self._read_secret = read_secret
        self._token = ""
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    async def fetch(self) -> str:
        if time.monotonic() >= self._renew_at:
            async with self._lock:
                if time.monotonic() >= self._renew_at:
                    await for_everybody(self._renew)
        return self._token

    async def _renew(self) -> None:
        answer = await self._client.post(
            "/internal/service-tokens", {"service": self._service, "secret": self._read_secret()}
        )
        self._token = answer["access_token"]
        self._renew_at = time.monotonic() + answer["expires_in"] * 0.7


def _read(answer: Answer) -> Any:
    if not 200 <= answer.status < 300:
        raise _refusal(answer)
    try:
        return json.loads(answer.body) if answer.body else None
    except ValueError as error:
        raise _not_understood() from error


def _refusal(answer: Answer) -> Refusal:
    """The target's problem document as an exception of this process."""
    if answer.status == Unauthenticated.status:
        # It is this service whom the target does not know; signing in again would not help whoever asked.
        return Unavailable("Another service does not accept the token of this one.", code="service_unavailable")
    try:
        document = json.loads(answer.body)
        kind = REFUSAL_OF_STATUS[answer.status]
        standard = {"type", "title", "status", "code", "detail", "errors", "instance", "request_id"}
        data = {name: value for name, value in document.items() if name not in standard}
        refusal = kind(document["detail"], code=document["code"], **data)
        refusal.errors = document.get("errors", [])
        return refusal
    except (ValueError, KeyError, TypeError):
        return _not_understood()


def _not_understood() -> Unavailable:
    return Unavailable("Another service answered something that cannot be understood.", code="service_unavailable")
