"""Refusals, and the one form in which a client sees them (RFC 9457 problem documents).

    Refusal                     an expected refusal: status, stable code, human detail, data
    ├── BadRequest       400    the request cannot be read
    ├── Unauthenticated  401    no token, or one that does not verify
    ├── Forbidden        403    the actor lacks the right
    ├── NotFound         404    there is no such thing, or not for this actor
    ├── Conflict         409    the present state forbids it (not enough stock, wrong status, taken code)
    ├── Stale            412    If-Match names an older version
    ├── TooLarge         413    body or batch over its bound
    ├── Invalid          422    readable, but a field makes no sense; `errors` points at the fields
    ├── KeyRequired      428    Idempotency-Key or If-Match is missing
    ├── TooMany          429    slow down
    └── Unavailable      503    try again later, `Retry-After` says when
    ConfigurationError          the process cannot start like this; one line for the operator, exit code 2

Services subclass these for their own codes. Programmer errors are assertions and become a 500 that tells nothing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

PROBLEM_TYPE = "application/problem+json"


class FieldError(TypedDict):
    """One field that makes no sense: a JSON pointer (RFC 6901) into the body, or `query/NAME`, `header/NAME`, `path/NAME`."""

    pointer: str
    code: str
    detail: str


class Refusal(Exception):
    """An expected refusal. `data` becomes members of the problem document beside the standard ones."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **data: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.data = data

    def document(self) -> dict[str, Any]:
        """The members of the problem document; `code` is stable, `detail` is for people."""
        members: dict[str, Any] = {
            "type": f"urn:stockade:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            members["errors"] = self.errors
        return members | self.data

    def body(self) -> bytes:
        return json.dumps(self.document(), default=str).encode()


class BadRequest(Refusal):
    status, title, default_code = 400, "The request cannot be read", "bad_request"


class Unauthenticated(Refusal):
    status, title, default_code = 401, "Sign in first", "unauthenticated"

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="stockade"'}, **data)


class Forbidden(Refusal):
    status, title, default_code = 403, "Not allowed", "forbidden"


class NotFound(Refusal):
    status, title, default_code = 404, "Not found", "not_found"


class Conflict(Refusal):
    status, title, default_code = 409, "The present state forbids it", "conflict"


class Stale(Refusal):
    status, title, default_code = 412, "Somebody changed it meanwhile", "stale_version"


class TooLarge(Refusal):
    status, title, default_code = 413, "Too large", "too_large"


class Invalid(Refusal):
    status, title, default_code = 422, "A field makes no sense", "invalid_request"

    @classmethod
    def field(cls, pointer: str, code: str, detail: str) -> "Invalid":
        """One wrong field; its code is the document's code, too."""
        return cls(detail, code=code, errors=[{"pointer": pointer, "code": code, "detail": detail}])


class KeyRequired(Refusal):
    status, title, default_code = 428, "A header is missing", "precondition_required"


class TooMany(Refusal):
    status, title, default_code = 429, "Too many requests", "too_many_requests"


class Unavailable(Refusal):
    status, title, default_code = 503, "Not available right now", "unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 1, **data: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)}, **data)


class ConfigurationError(Exception):
    """The configuration cannot be used; the message names the variable, the cause and the next step in one line."""


REFUSAL_OF_STATUS: Mapping[int, type[Refusal]] = {kind.status: kind for kind in Refusal.__subclasses__()}
"""The refusals of this module, which are the only ones that stand directly below Refusal when it is read."""
