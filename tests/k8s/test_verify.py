"""verify.sh: it finds what is wrong, and what it takes for a refused connection really is one.

The probe runs for real against sockets of this machine; what is around it against a scripted kubectl
(tests/k8s/scripted_kubectl.py), whose pods reach what connections.yaml allows, or more, or less.
"""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from k8s.tools.rendering import TREE
from stockade.targets import NAMES
from tests.k8s.test_deploy import Place

PROBE = TREE / "scripts/probe.py"
API_SERVER = "kubernetes.default.svc.cluster.local:443"
PORTS = {"postgres": 5432}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A cluster in which all is well."""
    place = Place(tmp_path)
    strangers: dict[str, list[str]] = {
        "stockade-verify in inventory-system": [],
        # In a namespace that denies nothing, the API server may be reached.
        "stockade-verify in default": [API_SERVER],
    }
    place.script.reaches = {f"{name} in inventory-system": list_allowed(name) for name in NAMES} | strangers
    place.script.looks = {
        "pods": "user-service-1 Running ready\npostgres-backup-1 Succeeded\n",
        "jobs": "postgres-bootstrap SuccessCriteriaMet Complete\nstockade-migrate SuccessCriteriaMet Complete\n",
        "endpointslices": "ready ready ",
        "hpa": "user-service-hpa True\n",
        "networkpolicies": "all Ingress Egress \nEgress \n",
        "deployment": "stockade:0.1.0",
    }
    place.script.refusals = {"--privileged": 'pods "x" is forbidden: violates PodSecurity "restricted:v1.35"'}
    return place


def list_allowed(source: str) -> list[str]:
    """Addresses of all that connections.yaml lets a service reach, by a reader of YAML."""
    document = yaml.safe_load((TREE / "connections.yaml").read_text())
    return [
        f"{c['to']}.{document['parties'][c['to']]['namespace']}.svc.cluster.local:{PORTS.get(c['to'], 80)}"
        for c in document["connections"]
        if c["from"] == source
    ]


def verify(place: Place) -> tuple[int, list[str], str]:
    """Exit code, the bad findings, all output."""
    place.script.write(place.directory)
    done = subprocess.run(
        [TREE / "verify.sh"], env=place.environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, [line for line in done.stdout.splitlines() if "BAD" in line], done.stdout + done.stderr


def test_it_is_content_with_a_cluster_in_which_all_is_well(place: Place) -> None:
    code, bad, output = verify(place)
    assert (code, bad) == (0, []), output
    assert (
        "verify: good: order-service reaches user-service product-catalog-service inventory-service postgres and"
        in output
    )
    assert "verify: good: a stranger in default reaches nobody and nothing else of ours" in output
    assert output.endswith("verify: all 16 findings are good\n")
    assert not list(place.directory.glob("tmp.*"))


def test_it_makes_nothing_but_strangers_and_removes_them(place: Place) -> None:
    assert verify(place)[0] == 0
    calls = [call.replace("--request-timeout=20s ", "") for call in place.calls]
    made = [call for call in calls if call.startswith(("create", "apply", "run"))]
    assert all(call.startswith("create --filename=-") or "--dry-run=server" in call for call in made)
    for space in ("inventory-system", "default"):
        removed = f"delete pod stockade-verify --namespace={space} --ignore-not-found --wait=false"
        assert removed in calls[-2:]


def test_a_connection_too_many_is_found_wherever_it_comes_from(place: Place) -> None:
    """Such as every one of a network that does not enforce policies."""
    forbidden = "kong.inventory-edge.svc.cluster.local:80"
    for reached in place.script.reaches.values():
        reached.append(forbidden)
    code, bad, output = verify(place)
    assert code == 1
    assert len(bad) == len(NAMES) + 2, output
    assert all(line.endswith(f": {forbidden} is open") for line in bad)


def test_a_connection_too_few_is_found_wherever_it_comes_from(place: Place) -> None:
    lost = [f"{place.script.reaches[f'{name} in inventory-system'].pop()} is closed" for name in NAMES]
    code, bad, _ = verify(place)
    assert (code, [line.rpartition(": ")[2] for line in bad]) == (1, lost)


@pytest.mark.parametrize(
    ("kind", "said", "finding"),
    [
        ("pods", "order-service-1 Running\n", "order-service-1 is Running"),
        ("pods", "", "there are none"),
        ("jobs", "stockade-migrate Failed\n", "stockade-migrate is not"),
        ("endpointslices", "", "user-service product-catalog-service"),
        ("hpa", "user-service-hpa False\n", "user-service-hpa does not"),
        ("networkpolicies", "all Ingress \n", "inventory-system inventory-edge"),
    ],
)
def test_what_is_not_well_is_found(place: Place, kind: str, said: str, finding: str) -> None:
    place.script.looks[kind] = said
    code, bad, output = verify(place)
    assert code == 1
    assert [line for line in bad if finding in line], output


def test_a_namespace_that_takes_a_privileged_pod_is_found(place: Place) -> None:
    place.script.refusals = {}
    assert [line.partition("BAD: ")[2] for line in verify(place)[1]] == [
        "inventory-system takes a privileged pod",
        "inventory-edge takes a privileged pod",
    ]


def test_a_refusal_for_another_reason_does_not_count(place: Place) -> None:
    place.script.refusals = {"--privileged": "exceeded quota: bounds"}
    assert all("for another reason: exceeded quota" in line for line in verify(place)[1])
    assert len(verify(place)[1]) == 2


def test_a_pod_that_cannot_be_asked_is_no_proof(place: Place) -> None:
    place.script.refusals |= {"exec": "unable to upgrade connection"}
    code, bad, _ = verify(place)
    assert code == 1
    assert len([line for line in bad if "cannot be asked: unable to upgrade connection" in line]) == 7


def test_the_probe_tells_open_from_closed_from_unresolved() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        opened, closed = (f"127.0.0.1:{s.getsockname()[1]}" for s in (server, unused))
        unknown = "nowhere.invalid:80"
        done = subprocess.run(
            [sys.executable, "-I", "-c", PROBE.read_text(), opened, closed, unknown],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    assert done.stdout.splitlines() == [f"{opened} open", f"{closed} closed", f"{unknown} unresolved"]


def test_the_probe_takes_silence_for_closed() -> None:
    """A policy that drops does not answer. A full queue of a server that never accepts looks the same."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        target = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-I", "-c", PROBE.read_text(), target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        for filler in fillers:
            filler.close()
    assert done.stdout == f"{target} closed\n"
