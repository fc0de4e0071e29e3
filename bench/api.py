"""The public API as a set-up script uses it: one request at a time, off the event loop."""

import asyncio
import http.client
import json
import secrets
from typing import Any

from bench.errors import BenchError

EMAIL = "bench@example.com"
PASSWORD = "a throw-away password of the benchmark"

_TIMEOUT_S = 180
_TRY_TIMEOUT_S = 10
_SHOWN = 300


class Api:
    """A signed-in client of a server on this machine."""

    def __init__(self, port: int, *, token: str = "") -> None:
        self.port = port
        self.token = token
        self.last_answer = ""
        """What the last try was answered, for an error that says why nothing came of it."""

    async def sign_in(self) -> str:
        """A fresh access token, which is kept for the calls that follow."""
        tokens = await self.post("/auth/login", {"email": EMAIL, "password": PASSWORD})
        self.token = tokens["access_token"]
        return self.token

    async def post(self, path: str, body: Any) -> Any:
        """The JSON of an answer 200 or 201. Raises BenchError for any other."""
        return await asyncio.to_thread(self._expect_success, "POST", path, body)

    async def get(self, path: str) -> Any:
        return await asyncio.to_thread(self._expect_success, "GET", path, None)

    async def read(self, path: str) -> str:
        """The text at an address outside /api/v1."""
        return (await asyncio.to_thread(self._exchange, "GET", path, None, timeout_s=_TIMEOUT_S))[1].decode()

    def try_to_sign_in(self) -> bool:
        """Whether a sign-in succeeds now; blocks."""
        return self._try("POST", "/api/v1/auth/login", {"email": EMAIL, "password": PASSWORD}) == 200

    def is_ready(self) -> bool:
        """Whether the server says so; blocks."""
        return self._try("GET", "/health/ready", None) == 200

    def _try(self, method: str, path: str, body: Any) -> int:
        try:
            status, answer = self._exchange(method, path, body, timeout_s=_TRY_TIMEOUT_S)
        except (OSError, http.client.HTTPException) as error:
            status, answer = 0, str(error).encode()
        self.last_answer = f"{status} {answer[:_SHOWN].decode(errors='replace')}"
        return status

    def _expect_success(self, method: str, path: str, body: Any) -> Any:
        try:
            status, answer = self._exchange(method, f"/api/v1{path}", body, timeout_s=_TIMEOUT_S)
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{method} {path} got no answer: {error}") from error
        if status not in (200, 201):
            raise BenchError(f"{method} {path} was answered {status}: {answer[:_SHOWN].decode(errors='replace')}")
        return json.loads(answer)

    def _exchange(self, method: str, path: str, body: Any, *, timeout_s: float) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(16)}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
