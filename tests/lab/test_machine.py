"""A machine that cannot run the lab is told why, and nothing is attempted there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.machine import Tool, find_missing, find_obstacles

PROJECT = Path(__file__).parents[2]


def test_it_names_the_tools_that_are_not_there() -> None:
    missing = Tool("no-such-program-here", "no-such-package")
    assert find_missing((Tool("sh", "dash"), missing)) == [missing]


def test_it_asks_for_go_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("Go 1.26" in obstacle for obstacle in find_obstacles(()))


def test_it_refuses_a_go_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.21.3\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert any("found go1.21.3" in obstacle for obstacle in find_obstacles(()))


@pytest.mark.parametrize("command", ["test", "up", "build"])
def test_a_machine_without_go_skips_in_one_line_and_does_not_fail(command: str, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{tmp_path}", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "lab", command], cwd=PROJECT, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("lab: skipped here: ")
    assert list(tmp_path.iterdir()) == []
