"""Many clients at once, each sending its next request as soon as the last one is answered."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")


async def crowd(work: Iterable[Callable[[], Awaitable[T]]], *, clients: int) -> list[T]:
    """Do all of the work, by so many clients; what each piece gave, in the order of the work."""
    pieces = list(enumerate(work))
    pieces.reverse()
    done: dict[int, T] = {}

    async def client() -> None:
        while pieces:
            number, piece = pieces.pop()
            done[number] = await piece()

    await asyncio.gather(*(client() for _ in range(clients)))
    return [done[number] for number in sorted(done)]


@dataclass
class Tally:
    """What a crowd was answered."""

    answers: Counter[tuple[int, str]] = field(default_factory=Counter[tuple[int, str]])
    failures: list[str] = field(default_factory=list[str])

    def note(self, answer: httpx2.Response) -> Any:
        """Count an answer; gives its JSON."""
        body = answer.json() if answer.content else {}
        code = body.get("code", "") if answer.status_code >= 400 else ""
        self.answers[answer.status_code, code] += 1
        if answer.status_code >= 500:
            self.failures.append(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
        return body

    def check(self, *allowed: str) -> None:
        """No failure of ours, and no refusal but the allowed ones."""
        assert not self.failures, self.failures[:3]
        unexpected = {code for status, code in self.answers if status >= 400} - set(allowed)
        assert not unexpected, self.answers
