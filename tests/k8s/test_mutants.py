"""Each mutant is caught by the rule that its row names, and each rule catches one: a rule that no longer bites is found here."""

import copy
import functools
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s.tools.rendering import TREE, Manifest, render
from tests.k8s import boundary_rules, file_rules, workload_rules
from tests.k8s.mutants import MUTANTS, Mutant
from tests.k8s.rules import FILE_RULES, RULES, SLOW_RULES, FileRule
from tests.k8s.test_rules import read_files
from tests.k8s.trees import Rule, render_all

ORDER = "base/services/order-service"
LIST = f"{ORDER}/kustomization.yaml"
SPARE = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "allowed", "namespace": "inventory-system"},
    "data": {"key": "a value"},
}


def _put(path: str, text: str) -> Callable[[dict[str, str]], object]:
    return lambda files: files.update({path: text})


def _edit(path: str, old: str, new: str) -> Callable[[dict[str, str]], object]:
    def change(files: dict[str, str]) -> None:
        assert old in files[path]
        files[path] = files[path].replace(old, new)

    return change


FILE_MUTANTS: dict[str, tuple[FileRule, Callable[[dict[str, str]], object]]] = {
    "one of the six is gone": (file_rules.find_missing_files, lambda files: files.pop(f"{ORDER}/servicemonitor.yaml")),
    "a seventh": (file_rules.find_missing_files, _put(f"{ORDER}/secret.yaml", "kind: Secret")),
    "two kinds in one file": (file_rules.find_misfiled_objects, _put(f"{ORDER}/pdb.yaml", "kind: A\n---\nkind: B")),
    "a key said twice": (file_rules.find_unreadable_files, _edit(LIST, "resources:", "resources: []\nresources:")),
    "labels everywhere": (file_rules.find_rewriting, _edit(LIST, "resources:", "commonLabels: {a: b}\nresources:")),
    "a prefix": (file_rules.find_rewriting, _edit(LIST, "resources:", "namePrefix: x-\nresources:")),
    "a file that nobody applies": (file_rules.find_orphans, _edit(LIST, "  - networkpolicy.yaml\n", "")),
    "a directory without a kustomization": (file_rules.find_bare_directories, _put("base/extra/pod.yaml", "kind: Pod")),
    "the image in two places": (
        file_rules.find_scattered_images,
        _edit(LIST, "resources:", "images: [{name: stockade, newTag: 0.0.9}]\nresources:"),
    ),
    "the newest image": (
        file_rules.find_scattered_images,
        _edit("overlays/staging/kustomization.yaml", "newTag: 0.1.0", "newTag: latest"),
    ),
    "a path of a machine": (file_rules.find_local_names, _put("base/notes.md", "see " + "/".join(["", "work", "main"]))),
}  # fmt: skip

TREE_MUTANTS: dict[str, tuple[Rule, str, str, str]] = {
    "labels that rewrite peers": (
        boundary_rules.find_policy_gaps,
        "base/services/kustomization.yaml",
        "resources:",
        "labels: [{pairs: {tier: services}, includeSelectors: true}]\nresources:",
    ),
    "a service that is not hardened": (
        workload_rules.find_tokens,
        LIST,
        "components:\n  - ../../../components/service\n",
        "",
    ),
    "an overlay that lifts a limit": (
        workload_rules.find_unbounded_containers,
        "overlays/production/kustomization.yaml",
        "patches:",
        "patches:\n  - target: {kind: Deployment}\n    patch: |\n      - op: remove\n"
        "        path: /spec/template/spec/containers/0/resources/limits",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.title)
def test_the_named_rule_catches(mutant: Mutant) -> None:
    whole = _tree(mutant.tree)
    changed = copy.deepcopy(whole)
    mutant.change(changed)
    assert changed != whole, "nothing was broken"
    if mutant.rule in SLOW_RULES:
        # What these say of one object does not depend on the others.
        changed, whole = [it for it in changed if it not in whole], [it for it in whole if it not in changed]
    assert mutant.rule(whole) == []
    assert mutant.rule(changed) != []


@pytest.mark.parametrize("title", FILE_MUTANTS)
def test_the_named_rule_of_files_catches(title: str) -> None:
    rule, change = FILE_MUTANTS[title]
    changed = dict(read_files())
    change(changed)
    assert rule(read_files()) == []
    assert rule(changed) != []


@pytest.mark.parametrize("title", TREE_MUTANTS)
def test_the_named_rule_catches_what_only_rendering_brings_about(tmp_path: Path, title: str) -> None:
    rule, path, old, new = TREE_MUTANTS[title]
    tree = shutil.copytree(TREE, tmp_path / "k8s", ignore=shutil.ignore_patterns("__pycache__"))
    text = (tree / path).read_text()
    assert old in text
    (tree / path).write_text(text.replace(old, new))
    assert rule(render(tree / ("overlays/production" if path.startswith("overlays") else "base"))) != []


def test_every_rule_has_a_mutant() -> None:
    caught = {mutant.rule for mutant in MUTANTS} | {rule for rule, _ in FILE_MUTANTS.values()}
    assert [rule.__name__ for rule in (*RULES, *SLOW_RULES, *FILE_RULES) if rule not in caught] == []
    titles = Counter([*(mutant.title for mutant in MUTANTS), *FILE_MUTANTS, *TREE_MUTANTS])
    assert [title for title, times in titles.items() if times > 1] == []


@functools.cache
def _tree(name: str) -> list[Manifest]:
    trees = render_all()
    return [*trees["base"], SPARE] if name == "base with a ConfigMap" else trees[name]
