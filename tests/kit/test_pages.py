"""Pages: a cursor names a place, comes back as it went, and garbage is refused as an unknown cursor."""

import base64
import contextlib
import json
import string
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockade.kit.errors import Invalid
from stockade.kit.ids import uuid7
from stockade.kit.pages import CursorText, decode_cursor, encode_cursor, paginate
from tests.kit.probe import Running

BOUNDED = settings(derandomize=True, max_examples=400, deadline=None, database=None)
CURSOR_MAX = 2_000
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=254)
KEYS = st.lists(TEXT.map(lambda text: (str, text)) | st.integers().map(lambda number: (int, number))
                | st.uuids().map(lambda uuid: (UUID, uuid)), min_size=1, max_size=3)  # fmt: skip


def encode(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@BOUNDED
@given(KEYS)
def test_a_key_comes_back_as_it_went(key: list[tuple[Any, Any]]):
    cursor = encode_cursor(*(value for _, value in key))
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_")
    assert decode_cursor(cursor, *(kind for kind, _ in key)) == tuple(value for _, value in key)


@pytest.mark.parametrize("character", ["a", "ä", "語", "💩", '"', "\\", "\n"])
def test_the_longest_name_still_makes_a_cursor_that_is_taken(character: str):
    """The longest text that a list is ordered by is an e-mail address of 254 characters."""
    cursor = encode_cursor(character * 254)
    assert len(cursor) <= CURSOR_MAX
    assert CursorText.__metadata__[0].metadata[0].max_length == CURSOR_MAX  # pyright: ignore[reportAttributeAccessIssue]


def test_the_first_page_has_no_cursor():
    assert decode_cursor(None, str, int) is None


GARBAGE: list[str] = [
    "", "=", "====", "a", "ä", "%", "..", "AAAA", "\0", encode(b"\xff\xfe"), encode("text"), encode(7), encode(None), encode({}),
    encode([]), encode(["a"]), encode(["a", "b", "c"]), encode(["a", "b"]), encode(["a", None]), encode(["a", 1.5]),
    encode(["a\0", 1]), encode(b'["a", NaN]'), encode(b'["\\ud800", 1]'), encode(b"[" * 1_000), encode(["a", []]),
    encode(b'["a",' + b"9" * 5_000 + b"]"), encode(["a", True]), encode(["a", 10**30]),
]  # fmt: skip


@pytest.mark.parametrize("cursor", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_an_unknown_cursor(cursor: str):
    with pytest.raises(Invalid) as caught:
        decode_cursor(cursor, str, _small)
    assert (caught.value.code, caught.value.errors[0]["pointer"]) == ("unknown_cursor", "query/cursor")


def _small(text: str) -> int:
    """A kind of a key with a bound, as a column has one."""
    if not -(2**63) <= (number := int(text)) < 2**63:
        raise ValueError("no bigint")
    return number


@pytest.mark.parametrize("kind", [int, UUID, Decimal, datetime.fromisoformat])
def test_a_part_of_the_wrong_kind_is_an_unknown_cursor(kind: Any):
    with pytest.raises(Invalid) as caught:
        decode_cursor(encode(["x"]), kind)
    assert caught.value.code == "unknown_cursor"


@BOUNDED
@given(
    st.text(max_size=400)
    | st.binary(max_size=100).map(encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    ).map(encode)
)
def test_no_cursor_breaks_it(cursor: str):  # fmt: skip
    for kinds in ((str,), (int,), (UUID,), (Decimal,), (str, str), (str, UUID)):
        with contextlib.suppress(Invalid):  # Which is always the refusal `unknown_cursor`; anything else fails here.
            key = decode_cursor(cursor, *kinds)
            assert key is not None
            "".join(map(str, key)).encode()  # What passes can be sent to a database.


@pytest.mark.parametrize("cursor", GARBAGE[:-1], ids=range(len(GARBAGE) - 1))
async def test_a_list_refuses_garbage_and_never_fails(probe: Running, cursor: str):
    answer = await probe.http.get(
        "/api/v1/probes", params={"cursor": cursor}, headers=(await probe.ask("GET", "/health")).request.headers
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] in ("unknown_cursor", "invalid_address", "invalid_request")


async def test_a_number_beyond_every_column_is_refused_and_no_failure(probe: Running):
    answer = await probe.ask("GET", f"/api/v1/probes?cursor={encode([10**30])}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_value")


async def test_pages_hold_everything_once_and_in_order(probe: Running):
    texts = [f"page {number}" for number in range(23)]
    for text in texts:
        await probe.ask("POST", "/api/v1/probes", {"text": text})
    found: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        query = {"limit": 5} | ({"cursor": cursor} if cursor else {})
        page = (await probe.ask("GET", "/api/v1/probes", params=query)).json()
        assert len(page["items"]) == 5 or page["next"] is None
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert found == texts


def test_a_full_last_page_has_no_next():
    rows = [uuid7() for _ in range(3)]
    assert paginate(rows, 3, lambda row: (row,)) == (rows, None)
    page, following = paginate(rows, 2, lambda row: (row,))
    assert page == rows[:2]
    assert decode_cursor(following, UUID) == (rows[1],)
