"""Cursor pages: lists answer `{"items": […], "next": cursor|null}` and continue by key, never by offset.

A cursor is the key of the last item, encoded so that nobody builds on its form. It needs no signature: it can only name
a place in a list that the caller may read anyway.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query

from stockade.kit.errors import Invalid
from stockade.kit.shapes import Shape

PAGE_SIZE_MAX = 1000
T = TypeVar("T")
Row = TypeVar("Row")

PageSize = Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX, description="Items per page.")]
# A key may be an e-mail address of 254 characters, of up to four bytes each, in base64.
CursorText = Annotated[str | None, Query(max_length=2_000, description="`next` of the page before.")]


class Page(Shape, Generic[T]):
    """A part of a list; `next` is null on the last page."""

    items: list[T]
    next: str | None


def encode_cursor(*key: Any) -> str:
    """The cursor after the item with this key; its parts must be strings or whole numbers."""
    text = json.dumps(key, separators=(",", ":"), default=str, ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *kinds: Callable[[str], Any]) -> tuple[Any, ...] | None:
    """The key in a cursor, its parts converted by `kinds` (such as `str`, `int`, `UUID`); None for the first page."""
    if cursor is None:
        return None
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(parts, list) or len(parts) != len(kinds):  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError("wrong number of parts")
        texts = [str(part) for part in parts]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if b"\0" in "".join(texts).encode():  # Which refuses half a surrogate pair as well.
            raise ValueError("not a key")
        return tuple(kind(text) for kind, text in zip(kinds, texts, strict=True))
    except (ValueError, ArithmeticError, binascii.Error, RecursionError) as error:
        raise Invalid.field(
            "query/cursor", "unknown_cursor", "This cursor is not one of this list; start without a cursor."
        ) from error


def paginate(
    rows: Sequence[Row], limit: int, key: Callable[[Row], tuple[Any, ...]]
) -> tuple[Sequence[Row], str | None]:
    """Cut a result that was fetched with `LIMIT limit + 1`: the rows of this page, and the cursor of the next."""
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, encode_cursor(*key(page[-1]))
