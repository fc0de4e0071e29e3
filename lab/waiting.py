"""Waiting for something to become true, never without a bound."""

import time
from collections.abc import Callable


class WaitError(Exception):
    """It did not become true in time."""


def wait_until(is_done: Callable[[], bool], what: str, timeout_s: float, *, every_s: float = 0.2) -> float:
    """Ask until it is so, and return how many seconds that took. Raises WaitError naming `what` was waited for."""
    started = time.monotonic()
    while not is_done():
        if time.monotonic() - started > timeout_s:
            raise WaitError(f"no {what} after {timeout_s:.0f} s")
        time.sleep(every_s)
    return time.monotonic() - started
