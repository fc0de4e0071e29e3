"""Who asks, and may they: ES256 tokens verified by every service itself against the JWKS of the user-service.

A token carries the actor's permissions, so a service decides without asking anybody. There is no shared signing secret
and no trust in the network. `require("stock:read")` is the one way to protect a route.
"""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from stockade.kit.calls import for_everybody
from stockade.kit.errors import Forbidden, Refusal, Unauthenticated, Unavailable
from stockade.kit.logs import actor_id

ALGORITHM = "ES256"
AUDIENCE = "stockade"
_TOKEN_LENGTH_MAX = 8_192
_CACHE_MAX = 10_000
_KEYS_FRESH_S = 300.0
_KEYS_RETRY_S = 5.0
_LEEWAY_S = 5

FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class Actor:
    """A verified caller: a person (`id` is the account) or a service (`id` is its name)."""

    id: str
    kind: Literal["user", "service"]
    permissions: frozenset[str]
    roles: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    session: UUID | None = None

    @property
    def responsible(self) -> str:
        """Whom records name: the person behind a service's call if there is one."""
        return self.on_behalf_of or self.id

    @property
    def key_owner(self) -> str:
        """Whose Idempotency-Keys these are. A service's keys are its own, whoever stands behind the call."""
        return f"{self.kind}:{self.id}"


@dataclass
class TokenVerifier:
    """Verifies tokens; keeps the keys for minutes and the verdicts until the token ends."""

    fetch_keys: FetchKeys
    issuer: str
    _keys: dict[str, ECKey] = field(default_factory=dict[str, ECKey])
    _fetched_at: float = float("-inf")
    _verdicts: dict[str, tuple[float, Actor]] = field(default_factory=dict[str, tuple[float, Actor]])
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def verify(self, token: str) -> Actor:
        """The actor of a token. Raises Unauthenticated for anything that is not a valid, unexpired ES256 token of ours."""
        known = self._verdicts.get(token)
        # Only while the keys are fresh: a token that comes all the time must not outlive the key that signed it.
        if known is not None and known[0] > time.time() and self._age_of_keys_s() <= _KEYS_FRESH_S:
            return known[1]
        if len(token) > _TOKEN_LENGTH_MAX:
            raise Unauthenticated("The token is too long.", code="invalid_token")
        expires_at, actor = await self._check(token)
        if len(self._verdicts) >= _CACHE_MAX:
            self._verdicts.clear()
        self._verdicts[token] = (expires_at, actor)
        return actor

    async def _check(self, token: str) -> tuple[float, Actor]:
        try:
            key = await self._find_key(_read_key_id(token))
            claims = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
            registry = jwt.JWTClaimsRegistry(
                leeway=_LEEWAY_S,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": AUDIENCE},
                exp={"essential": True},
                sub={"essential": True},
            )
            registry.validate(claims)
            return float(claims["exp"]), _read_actor(claims)
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unauthenticated(
                "The token is not valid or has expired; sign in again.", code="invalid_token"
            ) from error

    async def _find_key(self, key_id: str) -> ECKey:
        age_s = self._age_of_keys_s()
        if age_s > _KEYS_FRESH_S or (key_id not in self._keys and age_s > _KEYS_RETRY_S):
            async with self._lock:
                await self._refresh()
        return self._keys[key_id]

    async def _refresh(self) -> None:
        if self._age_of_keys_s() < _KEYS_RETRY_S:
            return
        try:
            document = await for_everybody(self.fetch_keys)
            keys = {key["kid"]: ECKey.import_key(key) for key in document["keys"]}
        except (Refusal, JoseError, ValueError, KeyError, TypeError) as error:
            if not self._keys:
                raise Unavailable(
                    "The keys for verifying tokens cannot be fetched; try again.", code="keys_unavailable"
                ) from error
            self._fetched_at = time.monotonic() - _KEYS_FRESH_S + _KEYS_RETRY_S
            return
        self._keys = keys
        self._fetched_at = time.monotonic()
        self._verdicts.clear()  # A withdrawn key must not live on in remembered verdicts.

    def _age_of_keys_s(self) -> float:
        return time.monotonic() - self._fetched_at


_bearer = HTTPBearer(auto_error=False, description="An access token of `POST /api/v1/auth/login`.")


async def authenticate(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Actor:
    """The verified actor of a request; also names them in the log lines of the request."""
    if credentials is None:
        raise Unauthenticated("Send an access token: `Authorization: Bearer …` (POST /api/v1/auth/login gives one).")
    verifier: TokenVerifier = request.app.state.context.verifier
    actor = await verifier.verify(credentials.credentials)
    if actor.kind == "service" and (person := request.headers.get("X-Stockade-On-Behalf-Of")):
        actor = Actor(actor.id, actor.kind, actor.permissions, on_behalf_of=person[:64])
    actor_id.set(actor.responsible)
    return actor


def require(permission: str) -> Any:
    """A route's default for its `actor` parameter: the verified actor, refused (403) without the permission."""

    async def check(actor: Annotated[Actor, Depends(authenticate)]) -> Actor:
        if permission not in actor.permissions:
            raise Forbidden(f"This needs the permission {permission}, which your roles do not give.", needs=permission)
        return actor

    return Depends(check)


def _read_key_id(token: str) -> str:
    header = token.split(".", 1)[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def _read_actor(claims: Mapping[str, Any]) -> Actor:
    kind = claims["kind"]
    if kind not in ("user", "service"):
        raise ValueError(f"unknown kind of actor {kind!r}")
    return Actor(
        id=str(claims["sub"]),
        kind=kind,
        permissions=frozenset(map(str, claims["permissions"])),
        roles=tuple(map(str, claims.get("roles", ()))),
        session=UUID(claims["sid"]) if "sid" in claims else None,
    )
