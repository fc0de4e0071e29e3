"""Our reading of Pod Security against the library of the API server, on every pod of ours and every one broken on purpose."""

import copy
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lab.binaries import BuildError, Group, build
from tests.k8s.mutants import PODS
from tests.k8s.pod_security import evaluate
from tests.k8s.test_pod_security import (
    ACCEPTED,
    REFUSED_AT_BASELINE,
    REFUSED_AT_RESTRICTED,
    SAFE,
    change_safe,
    make_workload,
)
from tests.k8s.trees import Workload, render_all, workloads_of

EVALUATOR = Group("pod-security", "pod-security", ("./cmd/evaluate",))
STRICTER: dict[str, tuple[str, Any]] = {
    "a sysctl of 1.37": ("securityContext.sysctls", [{"name": "net.ipv4.tcp_notsent_lowat", "value": "1"}]),
    "another one": ("securityContext.sysctls", [{"name": "net.ipv4.tcp_slow_start_after_idle", "value": "0"}]),
}
"""Where we refuse what the newest release allows, on purpose."""

pytestmark = pytest.mark.timeout(900)  # The first time, Go compiles the library.


@pytest.fixture(scope="module")
def pods() -> dict[str, Workload]:
    return dict(_pods_to_compare())


@pytest.fixture(scope="module")
def answers(pods: dict[str, Workload]) -> dict[str, dict[str, list[str]]]:
    try:
        program = build(EVALUATOR, print) / "evaluate"
    except (BuildError, FileNotFoundError) as error:
        pytest.skip(f"the library of Pod Security cannot be built here: {error}")
    templates = json.dumps({name: workload.pod for name, workload in pods.items()})
    done = subprocess.run([program], input=templates, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_both_say_the_same_of_every_pod(pods: dict[str, Workload], answers: dict[str, dict[str, list[str]]]) -> None:
    differences = {
        f"{name} at {level} of {release}": (ours, theirs)
        for name, workload in pods.items()
        for level in ("baseline", "restricted")
        for release in ("1.35", "1.37")
        if name not in STRICTER
        and bool(ours := evaluate(workload, level)) != bool(theirs := answers[name][f"{level}-{release}"])
    }
    assert differences == {}
    assert len(pods) > 100
    refused = [name for name, answer in answers.items() if answer["restricted-1.35"]]
    assert len(refused) > 40, "most of the comparison would be of pods that everybody accepts"


def test_we_are_stricter_only_where_we_say_so(
    pods: dict[str, Workload], answers: dict[str, dict[str, list[str]]]
) -> None:
    for name in STRICTER:
        assert evaluate(pods[name], "restricted")
        assert (answers[name]["restricted-1.35"] != [], answers[name]["restricted-1.37"] != []) == (True, False)


def _pods_to_compare() -> Iterator[tuple[str, Workload]]:
    for tree, manifests in render_all().items():
        yield from ((f"{tree}: {workload.title}", workload) for workload in workloads_of(manifests))
    base = render_all()["base"]
    for mutant in PODS:
        changed = copy.deepcopy(base)
        mutant.change(changed)
        for workload in workloads_of(it for it in changed if it not in base):
            yield f"mutant: {mutant.title}", workload
    yield "the safe example", make_workload(SAFE)
    for path, value, *_ in (*REFUSED_AT_BASELINE, *REFUSED_AT_RESTRICTED, *ACCEPTED):
        yield f"{path} = {value}", change_safe(path, value)
    for name, (path, value) in STRICTER.items():
        yield name, change_safe(path, value)
