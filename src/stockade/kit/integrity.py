"""The self-audit: each invariant as a query that finds the rows which break it.

A service lists its checks; they run in the background, on demand (`stockade integrity`, `GET /integrity`) and in tests.
An empty result is the promise kept. A check reads one snapshot, so work under way never looks like a violation.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from stockade.kit.database import Connection
from stockade.kit.metrics import INTEGRITY_VIOLATIONS

_EXAMPLES_MAX = 5
FOUND_MAX = 1_000
"""More violations than this are not counted one by one."""


@dataclass(frozen=True)
class Check:
    """An invariant of design section 5: its id, the promise in words, and a query for what breaks it (one text column)."""

    id: str
    promise: str
    query: LiteralString


async def run_checks(connection: Connection, *, checks: Sequence[Check], service: str) -> list[dict[str, Any]]:
    """One finding a check: `{"id", "promise", "service", "violations", "examples", "took_ms"}`; sets the metric as well."""
    findings: list[dict[str, Any]] = []
    # A full check may take longer than any request may; it is bounded all the same.
    await connection.execute("SET LOCAL statement_timeout = '300s'")
    for check in checks:
        began = time.perf_counter()
        found: list[str] = []
        async for row in connection.cursor(check.query, timeout=300):
            found.append(str(row[0]))
            if len(found) == FOUND_MAX:
                break
        INTEGRITY_VIOLATIONS.labels(service, check.id).set(len(found))
        findings.append(
            {
                "id": check.id,
                "promise": check.promise,
                "service": service,
                "violations": len(found),
                "examples": found[:_EXAMPLES_MAX],
                "took_ms": round((time.perf_counter() - began) * 1000),
            }
        )
    return findings
