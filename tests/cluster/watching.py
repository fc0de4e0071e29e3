"""Watch a value while something else happens, by the API server's own stream, so that no state between is missed."""

import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.kubectl import Kubectl


@dataclass
class Watched:
    """Every value that was seen, and when, in seconds of the monotonic clock."""

    seen: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])

    @property
    def values(self) -> list[str]:
        return [value for _, value in self.seen]

    @property
    def numbers(self) -> list[int]:
        """For a count: the API leaves out a zero."""
        return [int(value or 0) for value in self.values]

    @property
    def changes(self) -> list[tuple[float, str]]:
        """Only the first of equal values that follow each other."""
        pairs = zip([(0.0, None), *self.seen], self.seen, strict=False)
        return [now for (_, before), now in pairs if now[1] != before]


@contextmanager
def watch(kubectl: Kubectl, kind: str, name: str, path: str, namespace: str = "inventory-system") -> Generator[Watched]:
    """Collect the values of a JSONPath of one object while the body runs."""
    command = ["get", kind, name, f"--namespace={namespace}", "--watch", f"--output=jsonpath={{{path}}}{{'\\n'}}"]
    process = subprocess.Popen(
        [str(kubectl.program), *command], stdout=subprocess.PIPE, text=True, env=kubectl.environment
    )
    watched = Watched()
    reader = threading.Thread(target=_read, args=(process, watched), daemon=True)
    reader.start()
    try:
        kubectl.wait_until(lambda _: bool(watched.seen), f"first state of {kind} {name}")
        yield watched
        assert process.poll() is None, "the watch ended early and may have missed something"
    finally:
        process.terminate()
        process.wait(timeout=10)
        reader.join(timeout=10)


def _read(process: "subprocess.Popen[str]", watched: Watched) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        watched.seen.append((time.monotonic(), line.rstrip("\n")))
