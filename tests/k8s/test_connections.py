"""Policies and connections.yaml say the same, in both directions, and the comparison sees each way of differing."""

import ast
import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s.tools.connections import Connection, Way, find_allowed, read_matrix
from k8s.tools.rendering import Manifest, render
from stockade.targets import NAMES, SERVICES

OVERLAYS = {"base": (), "overlays/staging": ("acme",), "overlays/production": ("acme",), "overlays/minimal": ()}
WAYS: tuple[Way, ...] = ("Ingress", "Egress")
SOURCE = Path(__file__).parents[2] / "src/stockade"


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    return render("base")


@pytest.mark.parametrize("directory", OVERLAYS)
def test_policies_allow_exactly_what_is_listed(directory: str) -> None:
    manifests = render(directory)
    matrix = read_matrix(manifests, components=OVERLAYS[directory])
    for way in WAYS:
        allowed, listed = find_allowed(manifests, matrix, way), matrix.of_side(way)
        assert sorted(allowed - listed) == [], way
        assert sorted(listed - allowed) == [], way


def test_services_are_listed_to_call_exactly_whom_their_code_names(base: list[Manifest]) -> None:
    calls = {(source, target) for source, target, *_ in read_matrix(base).connections if {source, target} <= set(NAMES)}
    keys = {(name, "user-service") for name in NAMES if name != "user-service"}
    assert calls == keys | {
        (service.name, named)
        for service in SERVICES
        for named in _names_in(SOURCE / service.schema)
        if named not in ("user-service", service.name)
    }


MUTANTS: dict[str, tuple[str, Callable[[Manifest], object]]] = {
    "a policy that denies nothing": ("default-deny", lambda policy: policy["spec"]["policyTypes"].clear()),
    "denies only what goes out": ("default-deny", lambda policy: policy["spec"]["policyTypes"].remove("Ingress")),
    "a rule without ports": ("kong", lambda policy: policy["spec"]["ingress"][0].pop("ports")),
    "a rule without peers": ("user-service", lambda policy: policy["spec"]["ingress"][0].pop("from")),
    "any pod of the namespace": ("kong", lambda policy: policy["spec"]["ingress"][0]["from"][0]["podSelector"].clear()),
    "any pod of another one": (
        "order-service",
        lambda policy: policy["spec"]["ingress"][0]["from"][-1].pop("podSelector"),
    ),
    "that pod in any namespace": (
        "order-service",
        lambda policy: policy["spec"]["ingress"][0]["from"][0]["namespaceSelector"].clear(),
    ),
    "a range of ports": ("kong", lambda policy: policy["spec"]["egress"][0]["ports"][0].update(port=1, endPort=65535)),
    "the whole world": (
        "traefik",
        lambda policy: policy["spec"]["egress"].append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
    ),
    "one caller forgotten": ("user-service", lambda policy: policy["spec"]["ingress"][0]["from"].pop(1)),
    "one callee forgotten": ("inventory-service", lambda policy: policy["spec"]["egress"].pop()),
    "another port": ("postgres", lambda policy: policy["spec"]["ingress"][0]["ports"][0].update(port=5433)),
    "UDP for TCP": ("supplier-service", lambda policy: policy["spec"]["ingress"][0]["ports"][0].update(protocol="UDP")),
    "no names": ("allow-dns", lambda policy: policy["spec"]["egress"][0]["ports"].pop()),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_sees_a_policy_that_says_something_else(base: list[Manifest], mutant: str) -> None:
    name, change = MUTANTS[mutant]
    manifests = copy.deepcopy(base)
    found = [it for it in manifests if it["kind"] == "NetworkPolicy" and it["metadata"]["name"] == name]
    for policy in found:
        change(policy)
    assert manifests != base
    matrix = read_matrix(manifests)
    assert any(find_allowed(manifests, matrix, way) != matrix.of_side(way) for way in WAYS)


def test_it_sees_a_connection_that_nobody_allows(base: list[Manifest]) -> None:
    matrix = read_matrix(base)
    for way in WAYS:
        allowed = find_allowed(base, matrix, way)
        assert Connection("user-service", "order-service", "TCP", 8080) not in allowed
        assert Connection("order-service", "user-service", "TCP", 8080) in allowed


def _names_in(package: Path) -> set[str]:
    return {
        node.value
        for path in package.glob("*.py")
        if path.name != "roles.py"  # It says what each service may do, not whom the user-service calls.
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NAMES
    }
