"""Idempotency-Key: one effect and one answer, whoever repeats what, how often, and at the same time."""

import asyncio
import json

import pytest

from stockade.kit import idempotency
from stockade.kit.background import Background
from stockade.kit.database import Connection
from stockade.kit.idempotency import fingerprint_of, forget_old_keys
from stockade.kit.ids import uuid7
from tests.kit.probe import Running, count_effects
from tests.world import issue_token

PATH = "/api/v1/probes"


async def post(probe: Running, text: str, *, key: str | None, path: str = PATH, subject: str = "ann", **more):
    headers = {"Authorization": f"Bearer {issue_token(('viewer',), subject=subject)}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return await probe.ask("POST", path, {"text": text} | more, headers=headers)


async def effects(probe: Running, text: str) -> int:
    return await probe.database.read(count_effects, subject=text)


@pytest.fixture
def text() -> str:
    return f"text {uuid7()}"


async def test_the_same_request_again_gets_the_first_answer_and_says_so(probe: Running, text: str):
    first = await post(probe, text, key=text[5:])
    again = await post(probe, text, key=text[5:])
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert await effects(probe, text) == 1


async def test_without_a_key_every_request_has_its_own_effect(probe: Running, text: str):
    answers = [await post(probe, text, key=None) for _ in range(3)]
    assert len({answer.json()["id"] for answer in answers}) == await effects(probe, text) == 3


@pytest.mark.parametrize("pause_s", [0, 0.05])
async def test_sixteen_at_once_have_one_effect_and_one_answer(probe: Running, text: str, pause_s: float):
    answers = await asyncio.gather(*(post(probe, text, key=text[5:], pause_s=pause_s) for _ in range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert [("idempotent-replay" in answer.headers) for answer in answers].count(False) == 1
    assert await effects(probe, text) == 1


async def test_twins_get_the_same_answer_although_there_was_only_enough_for_one(probe: Running, text: str):
    answers = await asyncio.gather(
        *(post(probe, text, key=text[5:], path=f"{PATH}/once", pause_s=0.02) for _ in range(16))
    )
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({answer.content for answer in answers}) == 1
    assert await effects(probe, text) == 1


async def test_strangers_at_once_do_not_get_each_others_answer(probe: Running, text: str):
    answers = await asyncio.gather(
        *(post(probe, text, key=f"{text[5:]}.{number}", path=f"{PATH}/once", pause_s=0.01) for number in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert await effects(probe, text) == 1


@pytest.mark.parametrize("same_time", [False, True])
async def test_the_same_key_with_another_body_is_refused(probe: Running, text: str, same_time: bool):
    first = post(probe, text, key=text[5:], pause_s=0.05)
    second = post(probe, text + "!", key=text[5:])
    answers = await asyncio.gather(first, second) if same_time else [await first, await second]
    assert sorted(answer.status_code for answer in answers) == [201, 422]
    refused = next(answer.json() for answer in answers if answer.status_code == 422)
    assert refused["code"] == "idempotency_key_reused"
    assert refused["errors"][0]["pointer"] == "header/Idempotency-Key"
    assert await effects(probe, text) + await effects(probe, text + "!") == 1


async def test_the_same_key_for_another_address_is_refused(probe: Running, text: str):
    assert (await post(probe, text, key=text[5:])).status_code == 201
    assert (await post(probe, text, key=text[5:], path=f"{PATH}/once")).json()["code"] == "idempotency_key_reused"


async def test_the_order_and_spacing_of_members_do_not_matter(probe: Running, text: str):
    first = await post(probe, text, key=text[5:], pause_s=0)
    body = '{ "pause_s" : 0,\n "text" : ' + json.dumps(text) + "}"
    headers = {
        "Authorization": f"Bearer {issue_token(('viewer',), subject='ann')}", "Idempotency-Key": text[5:],
        "Content-Type": "application/json",
    }  # fmt: skip
    again = await probe.http.post(PATH, content=body, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)


async def test_a_refusal_keeps_nothing(probe: Running):
    key = str(uuid7())
    before = await effects(probe, "refuse")
    refused = await post(probe, "refuse", key=key)
    assert (refused.status_code, refused.json()["code"]) == (409, "text_refused")
    assert await effects(probe, "refuse") == before
    other = await post(probe, f"other {key}", key=key)
    assert other.status_code == 201


async def test_a_senseless_request_keeps_nothing(probe: Running, text: str):
    key = text[5:]
    refused = await post(probe, text, key=key, quantity="-1")
    assert refused.status_code == 422
    assert (await post(probe, text, key=key)).status_code == 201


async def test_the_same_key_of_somebody_else_is_another_key(probe: Running, text: str):
    key = text[5:]
    mine, theirs = await asyncio.gather(post(probe, text, key=key), post(probe, text, key=key, subject="bob"))
    assert mine.json()["id"] != theirs.json()["id"]
    assert await effects(probe, text) == 2


@pytest.mark.parametrize(
    "key", [b"", b"a b", b"a" * 129, b"a\tb", b"a\x01b", b"\x7f", "ä".encode(), "ä".encode("latin-1")]
)
async def test_a_senseless_key_is_refused(probe: Running, key: bytes):
    answer = await probe.http.post(
        PATH,
        json={"text": "x"},
        headers={b"Idempotency-Key": key, b"Authorization": f"Bearer {issue_token(('viewer',))}".encode()},
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == "header/Idempotency-Key"


@pytest.mark.parametrize("key", ["a", "~" * 128, "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}"])
async def test_any_printable_key_is_taken(probe: Running, key: str):
    assert (await post(probe, "any key", key=key, subject=str(uuid7()))).status_code == 201


async def test_a_key_is_demanded_where_a_retry_could_do_harm(probe: Running):
    answer = await post(probe, "x", key=None, path=f"{PATH}/once")
    assert (answer.status_code, answer.json()["code"]) == (428, "idempotency_key_required")


async def test_old_keys_are_forgotten_and_young_ones_kept(probe: Running, text: str):
    await post(probe, text, key="old-key", subject="old")
    await post(probe, text, key="young-key", subject="old")

    async def make_old(connection: Connection) -> None:
        await connection.execute(
            "UPDATE idempotency_keys SET created_at = now() - interval '7 days 1 minute' WHERE key = 'old-key'"
        )

    await probe.database.run(make_old)
    assert await probe.database.run(forget_old_keys) is False
    assert "idempotent-replay" not in (await post(probe, text, key="old-key", subject="old")).headers
    assert "idempotent-replay" in (await post(probe, text, key="young-key", subject="old")).headers


async def test_old_keys_are_forgotten_faster_than_new_ones_come(probe: Running, monkeypatch: pytest.MonkeyPatch):
    """A batch is bounded; as long as batches are full, the background goes on at once."""
    monkeypatch.setattr(idempotency, "_FORGET_BATCH", 10)

    async def remember(connection: Connection) -> None:
        await connection.execute(
            """
            INSERT INTO idempotency_keys (actor, key, fingerprint, status, created_at)
            SELECT 'user:ancient', 'old-' || n, '', 201, now() - interval '8 days' FROM generate_series(1, 55) n
            """
        )

    async def count(connection: Connection) -> int:
        return await connection.fetchval("SELECT count(*) FROM idempotency_keys WHERE actor = 'user:ancient'")

    await probe.database.run(remember)
    loops = Background("probe-service")
    loops.repeat("forget old keys", lambda: probe.database.run(forget_old_keys), every_s=600)
    loops.start()
    for _ in range(100):
        await asyncio.sleep(0.05)
        if await probe.database.read(count) == 0:
            break
    await loops.stop()
    assert await probe.database.read(count) == 0


def test_what_is_not_json_is_identified_by_its_bytes():
    assert fingerprint_of("POST", "/a", b"{") != fingerprint_of("POST", "/a", b"[")
    assert fingerprint_of("POST", "/a", b"[" * 100_000) != fingerprint_of("POST", "/a", b"[" * 100_001)
    assert fingerprint_of("POST", "/a", b'{"a":1,"b":2}') == fingerprint_of("POST", "/a", b'{"b": 2, "a": 1}')
    assert fingerprint_of("POST", "/a", b'{"a":1}') != fingerprint_of("POST", "/a", b'{"a":"1"}')
    assert fingerprint_of("POST", "/a", b"\xff") != fingerprint_of("POST", "/a", b"\xfe")
