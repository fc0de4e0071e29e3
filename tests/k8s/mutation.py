"""How a tree is broken: one change of parsed manifests, written in one line.

A place is a path of keys separated by blanks, because labels have dots and slashes in them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k8s.tools.rendering import Manifest
from tests.k8s.trees import Rule, find, of_kind

Change = Callable[[list[Manifest]], object]


@dataclass(frozen=True)
class Mutant:
    title: str
    rule: Rule
    change: Change
    tree: str = "base"


def put(title: str, place: str, value: Any) -> Change:
    """Set what is at a place of an object, given as Kind/name."""

    def change(manifests: list[Manifest]) -> None:
        parent, key = _enter(manifests, title, place)
        parent[key] = value

    return change


def cut(title: str, place: str) -> Change:
    """Take away what is at a place."""

    def change(manifests: list[Manifest]) -> None:
        parent, key = _enter(manifests, title, place)
        del parent[key]

    return change


def append(title: str, place: str, value: Any) -> Change:
    """Add to the list at a place."""

    def change(manifests: list[Manifest]) -> None:
        parent, key = _enter(manifests, title, place)
        parent[key].append(value)

    return change


def drop(title: str) -> Change:
    """Remove an object, in every namespace that has it."""

    def change(manifests: list[Manifest]) -> None:
        manifests[:] = [it for it in manifests if f"{it['kind']}/{it['metadata']['name']}" != title]

    return change


def add(manifest: Manifest) -> Change:
    return lambda manifests: manifests.append(manifest)


def tell_kong(edit: Callable[[dict[str, Any]], object]) -> Change:
    """Edit the declaration inside its ConfigMap."""

    def change(manifests: list[Manifest]) -> None:
        (holder,) = [it for it in of_kind(manifests, "ConfigMap") if "kong.json" in it["data"]]
        declaration = json.loads(holder["data"]["kong.json"])
        edit(declaration)
        holder["data"]["kong.json"] = json.dumps(declaration)

    return change


def _enter(manifests: list[Manifest], title: str, place: str) -> tuple[Any, Any]:
    """The mapping or list that a place is in, and the last key. What is missing on the way is made."""
    *path, last = [int(key) if key.isdigit() else key for key in place.split()]
    inner: Any = find(manifests, *title.split("/"))
    for key in path:
        inner = inner[key] if isinstance(key, int) else inner.setdefault(key, {})
    return inner, last
