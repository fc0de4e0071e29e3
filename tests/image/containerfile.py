"""The Containerfile, read as far as it can be understood without a container builder."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    name: str
    argument: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.argument)


def read_containerfile() -> list[list[Instruction]]:
    """The instructions of each stage, from FROM to the next one; what stands before the first is the first item."""
    text = (PROJECT / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[list[Instruction]] = [[]]
    for line in joined.splitlines():
        name, _, argument = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, argument.strip()))
    return stages


def configuration_of(stage: list[Instruction]) -> dict[str, object]:
    """The part of an OCI image configuration that a stage's instructions stand for."""
    pairs = {
        name: dict(word.split("=", 1) for line in stage if line.name == name for word in line.words)
        for name in ("ENV", "LABEL")
    }
    last = {line.name: line.argument for line in stage}
    return {
        "User": last["USER"],
        "ExposedPorts": {last["EXPOSE"]: {}},
        "Env": [f"{name}={value}" for name, value in pairs["ENV"].items()],
        "Entrypoint": json.loads(last["ENTRYPOINT"]),
        "Cmd": json.loads(last["CMD"]),
        "WorkingDir": last["WORKDIR"],
        "StopSignal": last["STOPSIGNAL"],
        "Labels": pairs["LABEL"],
    }


def copied_sources() -> list[str]:
    """What the build stage copies out of the repository."""
    _, build, _ = read_containerfile()
    return [source for line in build if line.name == "COPY" for source in line.words[:-1]]


def copy_context(target: Path) -> None:
    """Copy to `target` what the build stage copies, where it copies it."""
    target.mkdir()
    for source in copied_sources():
        path = PROJECT / source
        if path.is_dir():
            shutil.copytree(path, target / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, target)
