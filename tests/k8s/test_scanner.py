"""A stranger's opinion: checkov objects to nothing that is not excepted with a reason, and every exception is still needed."""

import copy
import subprocess
from fnmatch import fnmatchcase

import pytest

from tests.k8s.mutation import add, put
from tests.k8s.scanner import Objection, ScannerError, find_scanner, read_exceptions, scan
from tests.k8s.trees import find, render_all

BROKEN = "the base, broken"

pytestmark = pytest.mark.timeout(900)  # The first time, checkov is installed.


@pytest.fixture(scope="module")
def objections(tmp_path_factory: pytest.TempPathFactory) -> list[Objection]:
    """Of every tree, and of a base that was broken on purpose."""
    try:
        python = find_scanner()
    except (ScannerError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"checkov cannot be installed here: {error}")
    broken = copy.deepcopy(render_all()["base"])
    server = "spec template spec containers 0"
    put("Deployment/order-service", f"{server} securityContext privileged", True)(broken)
    put("Deployment/order-service", f"{server} image", "stockade:latest")(broken)
    put("Deployment/user-service", "spec template spec hostNetwork", True)(broken)
    put("Deployment/kong", f"{server} securityContext capabilities add", ["SYS_ADMIN"])(broken)
    put("Role/traefik", "rules 0 verbs", ["*"])(broken)
    put("Role/traefik", "rules 0 resources", ["*"])(broken)
    pod = copy.deepcopy(find(broken, "Deployment", "kong")["spec"]["template"])
    pod["metadata"] |= {"name": "stray", "namespace": "default"}
    add({"apiVersion": "v1", "kind": "Pod", **pod})(broken)
    return scan(python, {**render_all(), BROKEN: broken}, tmp_path_factory.mktemp("scan"))


def test_it_objects_to_nothing_but_what_is_excepted(objections: list[Objection]) -> None:
    exceptions = read_exceptions()
    assert [it for it in objections if it.tree != BROKEN and not any(e.covers(it) for e in exceptions)] == []


def test_every_exception_is_needed_and_has_a_reason(objections: list[Objection]) -> None:
    for exception in read_exceptions():
        assert len(exception.reason) > 60, exception.check
        for pattern in exception.resources:
            only = [it for it in objections if it.tree != BROKEN and it.check == exception.check]
            assert [it for it in only if fnmatchcase(it.resource, pattern)], f"{exception.check} {pattern}"
            assert {it.says for it in only} == {exception.says}


@pytest.mark.parametrize("check", ["CKV_K8S_16", "CKV_K8S_14", "CKV_K8S_19", "CKV_K8S_39", "CKV_K8S_49", "CKV_K8S_21"])
def test_it_sees_what_was_broken_on_purpose(objections: list[Objection], check: str) -> None:
    assert [it for it in objections if it.tree == BROKEN and it.check == check]
