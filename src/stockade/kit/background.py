"""Work beside the requests: loops that end with the process and never end because of one failure."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from stockade.kit.logs import get_logger
from stockade.kit.metrics import BACKGROUND_FAILURES

Round = Callable[[], Awaitable[object]]

_BACKOFF_MAX_S = 30.0
_DOUBLINGS_MAX = 16


class Background:
    """The background tasks of one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._log = get_logger(service)
        self._tasks: set[asyncio.Task[None]] = set()
        self._planned: list[tuple[str, Round, float]] = []

    def repeat(self, name: str, work: Round, *, every_s: float) -> None:
        """Run `work` now and then every `every_s` seconds once the service starts; a failed round backs off and is counted.

        A round that answers True has left more to do and is followed by the next one at once.
        """
        self._planned.append((name, work, every_s))

    def start(self) -> None:
        self._tasks = {asyncio.create_task(self._loop(*plan), name=plan[0]) for plan in self._planned}

    async def stop(self) -> None:
        """Cancel every loop and wait for it; a transaction under way rolls back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _loop(self, name: str, work: Round, every_s: float) -> None:
        failures = 0
        while True:
            try:
                pause = 0 if await work() is True else every_s
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop must live on; it is counted and logged
                failures += 1
                BACKGROUND_FAILURES.labels(self.service, name).inc()
                self._log.warning(
                    "background round failed",
                    **{"event.action": name, "error.type": type(error).__name__, "error.message": str(error)},
                )
                pause = min(_BACKOFF_MAX_S, every_s * 2 ** min(failures, _DOUBLINGS_MAX))
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311 - jitter, not a secret
