"""The real autoscaler on simulated load: up at once by as much as there is, down by a half after five minutes."""

import itertools
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from lab.kubectl import Kubectl, KubectlError
from tests.cluster.deployment import Deployed, wait_until_running
from tests.cluster.watching import Watched, watch

SERVICE = "inventory-service"
_SCOPE = "--namespace=inventory-system"

# Twice what a pod asks for (100m), nearly three times what the autoscaler aims at (70 %).
_BUSY = "200m"
_IDLE = "1m"

_WINDOW_S = 300.0
_PERIOD_S = 60.0
# The controller looks every 15 seconds, and metrics are up to 15 seconds old when it does.
_TICK_S = 30.0


@pytest.mark.slow
def test_it_grows_at_once_and_shrinks_by_half_after_five_minutes(kubectl: Kubectl, deployed: Deployed) -> None:
    wait_until_running(kubectl)
    with watch(kubectl, "deployment", SERVICE, ".spec.replicas") as watched:
        with _load(kubectl, _BUSY):
            busy = time.monotonic()
            kubectl.wait_until(lambda _: watched.numbers[-1] == 10, "ten replicas", 240)
        growth = _list_steps(watched, busy)
        with _load(kubectl, _IDLE):
            idle = time.monotonic()
            kubectl.wait_until(lambda _: watched.numbers[-1] == 2, "two replicas again", 700)
        shrinkage = _list_steps(watched, idle)
    _check_growth(growth)
    _check_shrinkage(shrinkage)


def _check_growth(steps: list[tuple[float, int, int]]) -> None:
    first_s, before, after = steps[0]
    assert (before, after) == (2, 4)
    assert first_s <= 2 * _TICK_S
    assert all(before < after <= 2 * before for _, before, after in steps)
    assert steps[-1][0] <= 180


def _check_shrinkage(steps: list[tuple[float, int, int]]) -> None:
    first_s, before, _ = steps[0]
    assert before == 10
    # The window counts from the last time that the load asked for ten, which is a tick or two before it was dropped.
    assert _WINDOW_S - 2 * _TICK_S <= first_s <= _WINDOW_S + 3 * _TICK_S
    for moment_s, before, after in steps:
        assert after < before
        # At most half of what there was a minute ago; the policy rounds in favour of fewer.
        assert after >= _count_at(steps, moment_s - _PERIOD_S + _TICK_S / 2) // 2
    assert steps[-1][0] - first_s >= _PERIOD_S - _TICK_S


def _count_at(steps: list[tuple[float, int, int]], moment_s: float) -> int:
    """How many there were before the first step that came later than that."""
    return next(before for step_s, before, _ in steps if step_s > moment_s)


def _list_steps(watched: Watched, since: float) -> list[tuple[float, int, int]]:
    """Each change after a moment: how many seconds after it, from how many, to how many."""
    changes = [(moment, int(value)) for moment, value in watched.changes]
    pairs = itertools.pairwise(changes)
    return [(now - since, before, after) for (_, before), (now, after) in pairs if now >= since]


@contextmanager
def _load(kubectl: Kubectl, cpu: str) -> Generator[None]:
    """Let every pod of the service seem to use so much, those that come later as well."""
    finished = threading.Event()

    def annotate() -> None:
        while not finished.wait(2):
            annotation = f"kwok.x-k8s.io/usage-cpu={cpu}"
            # Pods come and go meanwhile; the next round finds those that this one missed.
            with _ignoring_vanished_pods():
                kubectl("annotate", "pods", _SCOPE, f"--selector=app={SERVICE}", "--overwrite", annotation)

    thread = threading.Thread(target=annotate, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(timeout=60)


@contextmanager
def _ignoring_vanished_pods() -> Generator[None]:
    try:
        yield
    except KubectlError as error:
        if "not found" not in str(error).lower():
            raise
