"""A client of the public API: signed in, bounded in its connections and its patience, and watching how long answers take.

What the server says it cannot do now (429, 503, a broken connection) is asked again with the same Idempotency-Key, so
that nothing happens twice. A refusal is the caller's to judge.
"""

import asyncio
import ipaddress
import json
import random
import re
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from replay.errors import Broken, WrongUsage

ATTEMPTS_MAX = 10
WAIT_MAX_S = 5.0

_TIMEOUT_S = 120
_RENEW_AT_SHARE = 0.7
_PAGES_MAX = 100_000
_ID = re.compile(r"/[0-9a-f]{8}-[0-9a-f-]{27}(?=/|$)")


class Refused(Exception):
    """An answer 4xx: its status, the stable code of its problem document, and the document."""

    def __init__(self, method: str, path: str, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(document.get("code", "no_code"))
        self.document = document
        super().__init__(f"{method} {path}: {status} {self.code}: {document.get('detail', '')}")


class GaveUp(Exception):
    """No answer after many attempts, or an answer 5xx that asking again does not mend."""


class Client:
    """Use it as a context manager; entering signs in, and raises WrongUsage when that is refused."""

    def __init__(self, url: str, *, email: str, password: str, connections: int) -> None:
        self._base = check_loopback(url) + "/api/v1"
        self._credentials = {"email": email, "password": password}
        self._connections = connections
        self._signing_in = asyncio.Lock()
        self._token = ""
        self._refresh_token = ""
        self._renew_at = 0.0
        self.latencies_s: dict[str, list[float]] = {}
        """By route, how long each call took until it was answered, further attempts included."""
        self.attempts_again = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        )
        try:
            await self._bearer()
        except Refused as refused:
            await self._session.close()
            raise WrongUsage(f"The server does not let the replay in: {refused}") from refused
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str | int) -> Any:
        """The JSON of an answer 2xx. Raises Refused and GaveUp."""
        return await self._call("GET", path, None, query=query)

    async def get_all(self, path: str, **query: str | int) -> list[Any]:
        """The items of a list, page after page."""
        items: list[Any] = []
        for _ in range(_PAGES_MAX):
            page = await self.get(path, limit=1000, **query)
            items += page["items"]
            if page["next"] is None:
                return items
            query["cursor"] = page["next"]
        raise Broken(f"GET {path} has more pages than anyone could read.")

    async def post(self, path: str, body: Any, *, key: str) -> Any:
        """The JSON of an answer 2xx. Raises Refused and GaveUp."""
        return await self._call("POST", path, body, key=key)

    async def _call(
        self, method: str, path: str, body: Any, *, query: Mapping[str, str | int] | None = None, key: str | None = None
    ) -> Any:
        began = time.perf_counter()
        try:
            return await self._ask(method, path, body, query=query, key=key)
        finally:
            route = f"{method} {_ID.sub('/{id}', path)}"
            self.latencies_s.setdefault(route, []).append(time.perf_counter() - began)

    async def _ask(
        self, method: str, path: str, body: Any, *, query: Mapping[str, str | int] | None, key: str | None
    ) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if body is None else json.dumps(body).encode()
        said = ""
        for attempt in range(ATTEMPTS_MAX):
            headers["Authorization"] = f"Bearer {await self._bearer()}"
            try:
                status, retry_after, answer = await self._send(method, path, headers, content, query)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
                status, retry_after, said = 0, "", str(error) or type(error).__name__
            else:
                if status < 400:
                    return json.loads(answer) if answer else None
                document = _parse_problem(answer)
                said = f"{status} {document.get('code')}: {document.get('detail')}"
                if status == 401:
                    self._renew_at = 0.0
                elif status < 500 and status != 429:
                    raise Refused(method, path, status, document)
                elif status not in (429, 503):
                    raise GaveUp(f"{method} {path}: {said}")
            self.attempts_again += 1
            await asyncio.sleep(wait_before(attempt, retry_after))
        raise GaveUp(f"{method} {path} was not answered in {ATTEMPTS_MAX} attempts; the last one: {said}")

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | None,
        query: Mapping[str, str | int] | None = None,
    ) -> tuple[int, str, bytes]:
        # A redirection could lead away from this machine.
        async with self._session.request(
            method, self._base + path, headers=headers, data=content, params=query, allow_redirects=False
        ) as response:
            return response.status, response.headers.get("Retry-After", ""), await response.read()

    async def _bearer(self) -> str:
        if time.monotonic() >= self._renew_at:
            async with self._signing_in:
                if time.monotonic() >= self._renew_at:
                    await self._sign_in()
        return self._token

    async def _sign_in(self) -> None:
        """Exchange the refresh token, which works once; where it is not accepted (any more), the password works."""
        if self._refresh_token:
            status, tokens = await self._request_tokens("/auth/refresh", {"refresh_token": self._refresh_token})
            if status == 200:
                self._keep(tokens)
                return
        status, tokens = await self._request_tokens("/auth/login", self._credentials)
        if status != 200:
            raise Refused("POST", "/auth/login", status, tokens)
        self._keep(tokens)

    async def _request_tokens(self, path: str, body: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
        headers = {"Content-Type": "application/json"}
        try:
            status, _, answer = await self._send("POST", path, headers, json.dumps(body).encode())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise GaveUp(f"POST {path}: {error or type(error).__name__}") from error
        return status, _parse_problem(answer)

    def _keep(self, tokens: Mapping[str, Any]) -> None:
        self._token, self._refresh_token = tokens["access_token"], tokens["refresh_token"]
        self._renew_at = time.monotonic() + tokens["expires_in"] * _RENEW_AT_SHARE


def check_loopback(url: str) -> str:
    """The address without a final slash. Raises WrongUsage for every one that is not of this machine's loopback."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUsage(f"{url!r} is not the address of a server; give one such as http://127.0.0.1:8080.")
    try:
        found = {item[4][0] for item in socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise WrongUsage(f"The host of {url!r} is not known here.") from error
    if not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found):
        raise WrongUsage(f"{url!r} is not on this machine: a replay is a load test, and only loopback may get one.")
    return url.rstrip("/")


def wait_before(attempt: int, retry_after: str) -> float:
    """Seconds to wait after an attempt, the first being 0: what the server asks for, else twice as long every time."""
    wished_s = float(retry_after) if retry_after.isdigit() else 0.05 * 2**attempt
    return min(WAIT_MAX_S, wished_s) * random.uniform(0.8, 1.2)


def _parse_problem(answer: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(answer)
    except ValueError:
        return {"code": "not_json", "detail": answer[:200].decode(errors="replace")}
    return document if isinstance(document, dict) else {"code": "not_a_problem_document"}
