"""All rules in one list: what the tests hold against every tree, and what the mutants are told to break."""

from collections.abc import Callable
from types import ModuleType

from tests.k8s import (
    boundary_rules,
    capacity_rules,
    file_rules,
    gateway_rules,
    reference_rules,
    selector_rules,
    specification_rules,
    workload_rules,
)
from tests.k8s.file_rules import Files
from tests.k8s.pod_security import find_pod_security_violations
from tests.k8s.schemas import find_schema_errors, find_unknown_kinds
from tests.k8s.trees import Findings, Rule

FileRule = Callable[[Files], Findings]


def _rules_in(module: ModuleType) -> list[Callable[..., Findings]]:
    """The functions `find_…` that a module itself defines: a rule that is written is a rule that is held."""
    return [it for name, it in vars(module).items() if name.startswith("find_") and it.__module__ == module.__name__]


RULES: list[Rule] = [
    find_pod_security_violations,
    find_unknown_kinds,
    *(
        rule
        for module in (
            workload_rules, reference_rules, selector_rules, boundary_rules, capacity_rules, gateway_rules, specification_rules,
        )
        for rule in _rules_in(module)
    ),
]  # fmt: skip
FILE_RULES: list[FileRule] = _rules_in(file_rules)
SLOW_RULES: list[Rule] = [find_schema_errors]
"""Held against each object once, in test_schemas.py, instead of against each tree."""
