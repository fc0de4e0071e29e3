"""kubectl as a client: the same program and the same words that a person would use."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.waiting import wait_until

_TIMEOUT_S = 60.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class KubectlError(Exception):
    """kubectl refused; the text is its standard error, where the API server's own words are."""


class Kubectl:
    """kubectl with one user's identity."""

    def __init__(self, program: Path, kubeconfig: Path) -> None:
        self.program = program
        self.kubeconfig = kubeconfig

    def __call__(self, *arguments: str, content: str | None = None, timeout_s: float = _TIMEOUT_S) -> str:
        """Run it and return what it printed. Raises KubectlError, also when it takes longer than `timeout_s`."""
        command = [str(self.program), *arguments]
        try:
            done = subprocess.run(
                command, input=content, capture_output=True, text=True, timeout=timeout_s, env=self.environment,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise KubectlError(f"{' '.join(arguments)}: no end after {timeout_s:.0f} s") from error
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """The caller's without its proxies, which know no way to the lab."""
        kept = {name: value for name, value in os.environ.items() if name.upper() not in _PROXIES}
        return kept | {"KUBECONFIG": str(self.kubeconfig)}

    def get(self, *arguments: str) -> Any:
        """Return an object, or a list of them when no name is given."""
        answer = json.loads(self("get", *arguments, "--output=json"))
        return answer["items"] if answer["kind"] == "List" or answer["kind"].endswith("List") else answer

    def find(self, *arguments: str) -> Any:
        """Return an object, or None when there is none of that name."""
        answer = self("get", *arguments, "--ignore-not-found", "--output=json")
        return json.loads(answer) if answer.strip() else None

    def render(self, directory: Path) -> str:
        return self("kustomize", str(directory))

    def apply(self, content: str, *options: str) -> list[str]:
        """Apply manifests server-side and return kubectl's line about each object: `deployment.apps/x serverside-applied`."""
        return self("apply", "--server-side", *options, "--filename=-", content=content).splitlines()

    def wait_until(self, is_done: Callable[["Kubectl"], bool], what: str, timeout_s: float = _TIMEOUT_S) -> float:
        return wait_until(lambda: is_done(self), what, timeout_s)
