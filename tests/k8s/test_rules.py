"""Every tree keeps every rule: the base, each overlay, and each component and emergency Job on top of the base."""

import functools

import pytest

from k8s.tools.rendering import TREE
from tests.k8s.file_rules import Files
from tests.k8s.rules import FILE_RULES, RULES, FileRule
from tests.k8s.trees import OVERLAYS, Rule, find_unused_components, render_all, workloads_of

_TEXTS = (".yaml", ".json", ".conf", ".sh", ".py", ".md", ".lock")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_tree_keeps_this_rule(rule: Rule) -> None:
    assert {tree: found for tree, manifests in render_all().items() if (found := rule(manifests))} == {}


@pytest.mark.parametrize("rule", FILE_RULES, ids=lambda rule: rule.__name__)
def test_the_files_keep_this_rule(rule: FileRule) -> None:
    assert rule(read_files()) == []


def test_nothing_that_can_be_applied_is_left_out() -> None:
    trees = render_all()
    assert {"base", *OVERLAYS, *(f"base with {name}" for name in find_unused_components())} <= trees.keys()
    for tree, manifests in trees.items():
        assert len(workloads_of(manifests)) >= 8, tree


@functools.cache
def read_files() -> Files:
    """The texts below k8s/ by path."""
    paths = [path for path in TREE.rglob("*") if path.suffix in _TEXTS and "__pycache__" not in path.parts]
    return {path.relative_to(TREE).as_posix(): path.read_text() for path in paths}
