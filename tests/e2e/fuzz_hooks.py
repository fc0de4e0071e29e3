"""What Schemathesis does before each call here, and what it checks beside its own checks.

It draws from the schema alone, so nearly all that it asks for is unknown and nearly every key is used already. Half of
the requests that fit the schema therefore get ids and codes of things that exist, and all of them a key of their own.
"""

import json
import os
import zlib
from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis import GenerationMode

KNOWN: dict[str, Any] = json.loads(os.environ.get("STOCKADE_FUZZ_KNOWN", "{}"))
"""By the name of a parameter or of a member of a body, a value of something that exists."""
RULES = {
    # Of the type of a movement: which fields it has, and what sign.
    "field_not_used", "reason_required", "quantity_zero", "quantity_negative", "destination_required",
    # What no pattern says: that times lie in this age, the last digit of a GTIN, that two codes are the same.
    "instant_range", "check_digit", "duplicate_barcode", "sku_reserved",
    # Surrounding space does not count, so a text of nothing else is empty.
    "string_too_short",
}  # fmt: skip
"""Codes of wrong fields that a request may get although it fits the schema."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    del context, kwargs
    if not fits_schema(case):
        return
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid4())
    if zlib.crc32(repr((case.path_parameters, case.body)).encode()) % 2:
        return
    if case.headers and "If-Match" in case.headers:
        case.headers["If-Match"] = "*"
    before = case.path.removeprefix("/api/v1/").partition("/")[0]
    for name in case.path_parameters or {}:
        case.path_parameters[name] = KNOWN.get(f"{before} {name}", case.path_parameters[name])
    case.body = fill(case.body)


@schemathesis.check
def schema_says_all_that_is_refused(context: Any, response: Any, case: Any) -> None:
    """A request that fits the schema is refused for what it means, never for its form."""
    del context
    if fits_schema(case) and response.status_code in (400, 415, 422):
        problem = response.json()
        codes = {error["code"] for error in problem.get("errors", ())}
        if problem["code"] in ("invalid_request", "invalid_json") and not codes & RULES:
            raise AssertionError(f"It fits the schema and is refused all the same: {problem}")


def fits_schema(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE


def fill(body: Any) -> Any:
    """The body with things that exist."""
    if isinstance(body, dict):
        return {
            name: KNOWN[name] if name in KNOWN and isinstance(value, str) else fill(value)
            for name, value in body.items()
        }
    return [fill(item) for item in body] if isinstance(body, list) else body
