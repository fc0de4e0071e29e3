"""Tokens: only ours, only now, only ES256; and keys that come, go, and cannot be fetched for a while."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from stockade.kit.auth import AUDIENCE, Actor, TokenVerifier
from stockade.kit.calls import Network
from stockade.kit.errors import Unauthenticated, Unavailable
from stockade.user.signing import SigningKeys, read_signing_keys
from tests.kit.probe import Running, Served, client_of, fetch_public_keys
from tests.world import JWT_SECRET, World, issue_token

KEYS = read_signing_keys(JWT_SECRET)
KEY_ID = KEYS.keys[0].thumbprint()


def encode(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; a change to None leaves the claim out."""
    now = int(time.time())
    whole = {
        "iss": "stockade", "aud": AUDIENCE, "sub": "ann", "kind": "user", "iat": now, "exp": now + 300,
        "roles": ["viewer"], "permissions": ["stock:read"],
    } | changes  # fmt: skip
    return {name: value for name, value in whole.items() if value is not None}


def forge(header: dict[str, Any], content: Any = None, signature: bytes = b"") -> str:
    return f"{encode(header)}.{encode(content or claims())}.{encode(signature)}"


def sign_with_public_key(**header: Any) -> str:
    """HS256 with the public key as the secret: what a verifier that trusts the header would accept."""
    pem = KEYS.keys[0].public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encode({'alg': 'HS256', 'kid': KEY_ID} | header)}.{encode(claims())}"
    return f"{signed}.{encode(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def sign_by_stranger() -> str:
    """Signed with another P-256 key, under the id of ours."""
    stranger = ECKey.generate_key("P-256")
    return jwt.encode({"alg": "ES256", "kid": KEY_ID}, claims(), stranger, algorithms=["ES256"])


def sign_with_secret_of_mine() -> str:
    secret = OctKey.import_key("x" * 32)
    return jwt.encode({"alg": "HS256", "kid": KEY_ID}, claims(), secret, algorithms=["HS256"])


GOOD = KEYS.sign(claims())
HEAD, BODY, SIGNATURE = GOOD.split(".")

REFUSED: dict[str, str] = {
    "expired": KEYS.sign(claims(exp=int(time.time()) - 60)),
    "without end": KEYS.sign(claims(exp=None)),
    "not yet valid": KEYS.sign(claims(nbf=int(time.time()) + 600)),
    "end that is no number": KEYS.sign(claims(exp="tomorrow")),
    "other issuer": KEYS.sign(claims(iss="somebody")),
    "without issuer": KEYS.sign(claims(iss=None)),
    "other audience": KEYS.sign(claims(aud="shop")),
    "without audience": KEYS.sign(claims(aud=None)),
    "without subject": KEYS.sign(claims(sub=None)),
    "without permissions": KEYS.sign(claims(permissions=None)),
    "permissions that are no list": KEYS.sign(claims(permissions=7)),
    "wrong kind": KEYS.sign(claims(kind="robot")),
    "without kind": KEYS.sign(claims(kind=None)),
    "session that is no id": KEYS.sign(claims(sid="x")),
    "forged with another key": sign_by_stranger(),
    "another key of the same secret family": read_signing_keys("y" * 40).sign(claims()),
    "alg none": forge({"alg": "none", "kid": KEY_ID}),
    "alg None": forge({"alg": "None", "kid": KEY_ID}),
    "HS256 with the public key": sign_with_public_key(),
    "HS256 with the public key, typ JWT": sign_with_public_key(typ="JWT"),
    "HS256": sign_with_secret_of_mine(),
    "key id unknown": forge({"alg": "ES256", "kid": "nobody"}, signature=b"x" * 64),
    "key id missing": forge({"alg": "ES256"}, signature=b"x" * 64),
    "key id that is a list": forge({"alg": "ES256", "kid": [KEY_ID]}, signature=b"x" * 64),
    "key id of a file": forge({"alg": "ES256", "kid": "../../etc/passwd"}, signature=b"x" * 64),
    "key in the header": forge({"alg": "ES256", "jwk": ECKey.generate_key("P-256").as_dict()}, signature=b"x" * 64),
    "critical extension": forge({"alg": "ES256", "kid": KEY_ID, "crit": ["b64"], "b64": False}, signature=b"x" * 64),
    "algorithm that is a list": forge({"alg": ["ES256"], "kid": KEY_ID}, signature=b"x" * 64),
    "algorithm that is an object": forge({"alg": {}, "kid": KEY_ID}, signature=b"x" * 64),
    "header that is a list": f"{encode([])}.{BODY}.{SIGNATURE}",
    "header that is nested deeply": f"{encode(b'[' * 5_000)}.{BODY}.{SIGNATURE}",
    "empty signature": f"{HEAD}.{BODY}.",
    "zero signature": f"{HEAD}.{BODY}.{encode(bytes(64))}",
    "signature cut short": GOOD[:-5],
    "other content": f"{HEAD}.{encode(claims(permissions=['users:write']))}.{SIGNATURE}",
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{GOOD}.x",
    "five parts": f"{HEAD}.{BODY}.{SIGNATURE}.x.y",
    "nothing but dots": "..",
    "one word": "token",
    "20 kB": GOOD + "A" * 20_000,
    "20 kB of content": KEYS.sign(claims(padding="x" * 20_000)),
}


async def ask(probe: Running, token: str | bytes):
    raw = token if isinstance(token, bytes) else token.encode("ascii")
    return await probe.http.get("/api/v1/probes/me", headers={b"Authorization": b"Bearer " + raw})


async def test_a_good_token_names_its_actor(probe: Running):
    answer = await ask(probe, GOOD)
    assert (answer.status_code, answer.json()) == (200, {"id": "ann", "kind": "user", "responsible": "ann"})


@pytest.mark.parametrize("name", REFUSED)
async def test_it_refuses_a_token_that_is(probe: Running, name: str):
    answer = await ask(probe, REFUSED[name])
    assert answer.status_code == 401, answer.text
    assert answer.json()["code"] == "invalid_token"


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "bearer", "", "Token x", GOOD], ids=range(6))
async def test_it_refuses_a_header_that_is_no_bearer_token(probe: Running, header: str):
    answer = await probe.http.get("/api/v1/probes/me", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json()["code"] in ("unauthenticated", "invalid_token")


@pytest.mark.parametrize("token", ["ä.ö.ü".encode(), b"\xff\xfe.\xff.\xff", f"{HEAD}.{BODY}.ä".encode("latin-1")])
async def test_it_refuses_a_token_that_is_not_ascii(probe: Running, token: bytes):
    answer = await ask(probe, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
HEADERS = st.fixed_dictionaries(
    {"kid": st.just(KEY_ID)},
    optional={"alg": st.sampled_from(["ES256", "ES384", "HS256", "none"]) | JSON, "typ": JSON, "crit": JSON, "b64": JSON,
              "zip": JSON, "cty": JSON, "jwk": JSON, "x5c": JSON},
)  # fmt: skip


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(HEADERS, JSON | st.binary(max_size=50), st.binary(max_size=80))
async def test_no_header_breaks_it(header: dict[str, Any], content: Any, signature: bytes):
    verifier = TokenVerifier(fetch_public_keys, "stockade")
    with pytest.raises(Unauthenticated):
        await verifier.verify(f"{encode(header)}.{encode(content)}.{encode(signature)}")


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.text(max_size=300))
async def test_no_text_breaks_it(token: str):
    verifier = TokenVerifier(fetch_public_keys, "stockade")
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


async def test_a_remembered_token_ends_when_it_ends():
    verifier = TokenVerifier(fetch_public_keys, "stockade")
    token = KEYS.sign(claims(exp=int(time.time()) - 2))  # Ended, within the leeway for clocks that differ.
    assert (await verifier.verify(token)).id == "ann"
    await asyncio.sleep(3.2)
    with pytest.raises(Unauthenticated):
        await verifier.verify(token)


async def test_the_person_behind_a_service_is_named_and_a_person_names_nobody(probe: Running):
    headers = {"X-Stockade-On-Behalf-Of": "ann"}
    service = {"Authorization": f"Bearer {KEYS.sign(claims(kind='service', sub='order-service'))}"}
    answer = await probe.http.get("/api/v1/probes/me", headers=headers | service)
    assert answer.json() == {"id": "order-service", "kind": "service", "responsible": "ann"}
    person = {"Authorization": f"Bearer {KEYS.sign(claims(sub='eve'))}"}
    assert (await probe.http.get("/api/v1/probes/me", headers=headers | person)).json()["responsible"] == "eve"


def test_the_keys_of_an_idempotent_service_are_its_own_and_not_the_persons():
    service = Actor("order-service", "service", frozenset(), on_behalf_of="ann")
    person = Actor("order-service", "user", frozenset())
    assert (service.responsible, service.key_owner) == ("ann", "service:order-service")
    assert person.key_owner != service.key_owner


class Keyring:
    """The published keys of a user-service whose secret changes."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.fetched = 0

    @property
    def keys(self) -> SigningKeys:
        return read_signing_keys(self.secret)

    async def fetch(self) -> dict[str, Any]:
        self.fetched += 1
        return self.keys.public_document()


OLD, NEW = "the old secret, which is long enough", "the new secret, which is long enough"


def age(verifier: TokenVerifier, seconds: float) -> None:
    """Let time pass for the verifier's keys."""
    verifier._fetched_at -= seconds


async def test_keys_overlap_while_they_rotate_and_a_withdrawn_one_ends():
    ring = Keyring(OLD)
    verifier = TokenVerifier(ring.fetch, "stockade")
    old = ring.keys.sign(claims(sub="old"))
    assert (await verifier.verify(old)).id == "old"
    ring.secret = f"{NEW}\n{OLD}"
    new = ring.keys.sign(claims(sub="new"))
    age(verifier, 6)
    assert (await verifier.verify(new)).id == "new"
    assert (await verifier.verify(old)).id == "old"
    ring.secret = NEW
    age(verifier, 301)
    with pytest.raises(Unauthenticated):
        await verifier.verify(old)  # Although this very token was good before.
    assert (await verifier.verify(new)).id == "new"


async def test_unknown_key_ids_do_not_make_it_fetch_all_the_time():
    ring = Keyring(OLD)
    verifier = TokenVerifier(ring.fetch, "stockade")
    for number in range(50):
        with pytest.raises(Unauthenticated):
            await verifier.verify(forge({"alg": "ES256", "kid": f"unknown-{number}"}, signature=b"x" * 64))
    assert ring.fetched == 1


async def test_many_first_requests_fetch_the_keys_once():
    ring = Keyring(OLD)
    verifier = TokenVerifier(ring.fetch, "stockade")
    actors = await asyncio.gather(*(verifier.verify(ring.keys.sign(claims(sub=f"u{n}"))) for n in range(50)))
    assert ([actor.id for actor in actors], ring.fetched) == ([f"u{n}" for n in range(50)], 1)


async def test_without_any_keys_it_says_that_they_cannot_be_fetched(served_probe: Served):
    gone = client_of(Network("http://127.0.0.1:1"))
    verifier = TokenVerifier(lambda: gone.get("/.well-known/jwks.json"), "stockade")
    served_probe.context.verifier = verifier
    answer = await ask(served_probe, GOOD)
    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    await gone.close()


async def test_stale_keys_keep_working_while_no_newer_ones_can_be_fetched():
    ring = Keyring(OLD)
    gone = client_of(Network("http://127.0.0.1:1"))
    verifier = TokenVerifier(ring.fetch, "stockade")
    assert (await verifier.verify(ring.keys.sign(claims(sub="before")))).id == "before"
    verifier.fetch_keys = lambda: gone.get("/.well-known/jwks.json")
    age(verifier, 400)
    assert (await verifier.verify(ring.keys.sign(claims(sub="after")))).id == "after"
    assert (await verifier.verify(ring.keys.sign(claims(sub="again")))).id == "again"
    await gone.close()


@pytest.mark.parametrize("document", [{}, {"keys": [{}]}, {"keys": [{"kid": "a", "kty": "EC"}]}, [], None, {"keys": 7}])
async def test_a_document_that_holds_no_keys_is_as_bad_as_none(document: Any):
    async def fetch() -> Any:
        return document

    with pytest.raises(Unavailable) as caught:
        await TokenVerifier(fetch, "stockade").verify(GOOD)
    assert caught.value.code == "keys_unavailable"


def test_an_issued_token_is_what_these_tests_think_it_is():
    assert jwt.decode(issue_token(("viewer",)), KEYS.keys[0], algorithms=["ES256"]).claims["aud"] == AUDIENCE


async def test_a_caller_in_a_hurry_cannot_keep_the_keys_from_being_fetched(world: World):
    headers = {"X-Stockade-Deadline-Ms": "0"}
    answer = await world.as_("viewer").request("GET", "/warehouses", headers=headers)
    assert answer.status_code == 200, answer.text
