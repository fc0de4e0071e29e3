"""A kubectl for deploy.sh and verify.sh that answers from a file and writes down what it was asked.

It stands for clusters that cannot be had at will: an old one, one that does not answer, one whose Job fails or whose pods never
come. What it answers to Go templates is what the real one does, which tests/cluster sees against a real API server.
`kustomize` goes to the real kubectl.

Run as a program: SCRIPT names a directory with `script.json` (a Script), and gets `calls`, a line for each call, and `made`.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Script:
    """What the cluster is like. `secrets` has key and length of each value; `refusals` has words of a call and the answer;
    `reaches` the addresses that each pod can connect to, `looks` what a list of a kind says."""

    kubectl: str
    server_minor: str = "37"
    client_minor: str = "37"
    known: list[str] = field(default_factory=list[str])
    denied: list[str] = field(default_factory=list[str])
    secrets: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    refusals: dict[str, str] = field(default_factory=dict[str, str])
    unfinished: list[str] = field(default_factory=list[str])
    job: str = "0 Complete,"
    log: str = ""
    reaches: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    looks: dict[str, str] = field(default_factory=dict[str, str])

    def write(self, directory: Path) -> None:
        (directory / "script.json").write_text(json.dumps(asdict(self)))


def main(directory: Path, arguments: list[str]) -> None:
    script = Script(**json.loads((directory / "script.json").read_text()))
    if arguments[0] == "kustomize":
        os.execv(script.kubectl, [script.kubectl, *arguments])  # noqa: S606  there is no shell to start it in
    with (directory / "calls").open("a") as calls:
        calls.write(" ".join(" ".join(arguments).split()) + "\n")
    line = " ".join(arguments)
    for words, answer in script.refusals.items():
        if words in line:
            sys.exit(answer)
    print(_answer(script, directory, [argument for argument in arguments if not argument.startswith("--re")]), end="")


def _answer(script: Script, directory: Path, arguments: list[str]) -> str:
    match arguments[:3]:
        case ["get", "--raw", _]:
            return json.dumps({"major": "1", "minor": script.server_minor})
        case ["version", *_]:
            return json.dumps({"clientVersion": {"major": "1", "minor": script.client_minor}})
        case ["config", *_]:
            return "scripted\n"
        case ["api-resources", *_]:
            return "\n".join(script.known)
        case ["create", "--validate=false", reviews]:
            return _review(script, Path(reviews.partition("=")[2]).read_text())
        case ["create", "secret", "generic"]:
            return _make_secret(directory, arguments)
        case ["get", "secret", name]:
            return _describe_secret(script, directory, name, arguments)
        case ["get", "job", _]:
            return script.job + "\n"
        case ["get", "deployments,statefulsets", *_]:
            return "".join(f"{name} 1 1 2 2 2 1\n" for name in script.unfinished)
        case ["logs", *_]:
            return script.log
        case ["exec", *_]:
            return _connect(script, arguments)
        case ["get", kind, *_]:
            return script.looks.get(kind, "")
        case ["apply", *_]:
            return "thing/one serverside-applied\n"
        case _:
            return ""


def _review(script: Script, reviews: str) -> str:
    lines: list[str] = []
    for review in reviews.split("---\n")[1:]:
        said = dict(part.strip().split(": ") for part in review.splitlines() if ": " in part)
        right = f"{said['verb']} {said['resource']}"
        lines.append(f"{'false' if right in script.denied else 'true'} {right}\n")
    return "".join(lines)


def _make_secret(directory: Path, arguments: list[str]) -> str:
    """Keep the files that the Secret was made of, for a test to look at."""
    source = next(Path(a.partition("=")[2]) for a in arguments if a.startswith("--from-file"))
    target = directory / "made" / arguments[3]
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return f"secret/{arguments[3]} created\n"


def _describe_secret(script: Script, directory: Path, name: str, arguments: list[str]) -> str:
    made = directory / "made" / name
    if any("tls.crt" in argument for argument in arguments):
        return (made / "tls.crt").read_text()
    if made.is_dir():
        return "".join(f"{path.name} {path.stat().st_size}\n" for path in made.iterdir())
    return "".join(f"{key} {length}\n" for key, length in script.secrets.get(name, {}).items())


def _connect(script: Script, arguments: list[str]) -> str:
    """What probe.py would print in that pod: `exec --namespace=N POD -- python -I -c TEXT TARGET...`."""
    pod = arguments[2].rpartition("/")[2]
    reached = script.reaches[f"{pod} in {arguments[1].rpartition('=')[2]}"]
    return "".join(f"{target} {'open' if target in reached else 'closed'}\n" for target in arguments[8:])


if __name__ == "__main__":
    main(Path(os.environ["SCRIPT"]), sys.argv[1:])
