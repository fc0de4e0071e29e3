"""deploy.sh and verify.sh against the real API server, after it was deployed twice: what else can happen to them.

The nodes are simulated, so pods run nothing: verify.sh can look at objects here and has to say that it cannot ask the pods.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from lab.definitions import SOURCES, fetch_definitions
from lab.kubectl import Kubectl, KubectlError
from tests.cluster.deployment import TREE, Deployed, wait_until_running

_SCOPE = "--namespace=inventory-system"
_TIMEOUT_S = 240

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def environment(kubectl: Kubectl, deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    programs = tmp_path_factory.mktemp("programs")
    (programs / "kubectl").symlink_to(kubectl.program)
    return kubectl.environment | {"PATH": f"{programs}:{os.environ['PATH']}"}


@pytest.fixture
def deploy(environment: dict[str, str]) -> Run:
    """Exit code and all that it printed."""

    def run(*arguments: str, program: str = "deploy.sh", **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            [TREE / program, *arguments], env=environment | variables, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def without(kubectl: Kubectl) -> Generator[Callable[[str], None]]:
    """Take a Secret away for one test."""
    kept: list[str] = []

    def take(name: str) -> None:
        kept.append(kubectl("get", "secret", name, _SCOPE, "--output=json"))
        kubectl("delete", "secret", name, _SCOPE)

    yield take
    for manifest in kept:
        kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", content=_without_history(manifest))


def test_the_certificate_is_checked_as_clients_check_it(kubectl: Kubectl, deploy: Run, tmp_path: Path) -> None:
    assert deploy("--only-secrets")[0] == 0
    for key in ("tls.crt", "ca.crt"):
        template = f'--output=go-template={{{{index .data "{key}" | base64decode}}}}'
        (tmp_path / key).write_text(kubectl("get", "secret", "postgres-tls", _SCOPE, template))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", tmp_path / "ca.crt"]
    name = "postgres.inventory-system.svc.cluster.local"
    subprocess.run([*command, "-verify_hostname", name, tmp_path / "tls.crt"], timeout=30, check=True)


def test_a_dry_run_asks_the_api_server_and_changes_nothing(kubectl: Kubectl, deploy: Run) -> None:
    before = _identify(kubectl)
    code, output = deploy("--dry-run")
    assert code == 0, output
    assert re.search(r"services: the API server would accept \d\d objects", output)
    assert _identify(kubectl) == before


def test_who_may_not_is_told_what(nobody: str, deploy: Run) -> None:
    code, output = deploy("--overlay", "minimal", KUBECONFIG=nobody)
    assert code == 1
    assert re.search(r"stopped: you may not \w+ \w+.* \(\d+ rights are missing\): ask for cluster-admin", output), (
        output
    )


@pytest.fixture
def nobody(kubectl: Kubectl, tmp_path: Path) -> Generator[str]:
    """A kubeconfig of somebody whom the API server knows and who may do nothing here."""
    kubectl("create", "serviceaccount", "nobody", "--namespace=default")
    token = kubectl("create", "token", "nobody", "--namespace=default").strip()
    path = tmp_path / "nobody.conf"
    path.touch(mode=0o600)
    view = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    view["users"][0]["user"] = {"token": token}
    path.write_text(json.dumps(view))
    yield str(path)
    kubectl("delete", "serviceaccount", "nobody", "--namespace=default")


def test_the_command_that_it_names_is_the_right_one(
    deploy: Run, without: Callable[[str], None], environment: dict[str, str]
) -> None:
    without("jwt-secret")
    command = deploy("--only-secrets")[1].strip().rpartition("again: ")[2]
    subprocess.run(["bash", "-c", command], env=environment, timeout=30, check=True)
    assert deploy("--only-secrets")[0] == 0


def test_what_somebody_changed_by_hand_needs_force(kubectl: Kubectl, deploy: Run) -> None:
    kubectl("set", "image", "deployment/order-service", "server=stockade:by-hand", _SCOPE, "--field-manager=somebody")
    code, output = deploy()
    assert code == 1
    assert re.search(r'conflict with "somebody".*somebody changed it by hand; --force takes it back', output), output
    assert deploy("--force")[0] == 0
    image = "--output=jsonpath={.spec.template.spec.containers[0].image}"
    assert kubectl("get", "deployment", "order-service", _SCOPE, image) == "stockade:0.1.0"
    wait_until_running(kubectl)


def test_an_interruption_leaves_what_the_next_run_goes_on_from(
    kubectl: Kubectl, deploy: Run, environment: dict[str, str]
) -> None:
    process = subprocess.Popen(
        [TREE / "deploy.sh"], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "postgres-bootstrap:" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 1
    assert "interrupted during" in rest, rest
    code, output = deploy()
    assert code == 0, output
    wait_until_running(kubectl)


def test_missing_definitions_are_installed(kubectl: Kubectl, deploy: Run, tmp_path: Path) -> None:
    """From files of the projects' own releases, whose hashes are those of definitions.lock."""
    for source in SOURCES:
        for path in fetch_definitions(source):
            shutil.copy(path, tmp_path)
    names = re.findall(r"_(\w+)\.yaml$", (TREE / "definitions.lock").read_text(), flags=re.MULTILINE)
    monitors = ["servicemonitors.monitoring.coreos.com", "podmonitors.monitoring.coreos.com"]
    assert {name.partition(".")[0] for name in monitors} <= set(names)
    kubectl("delete", "customresourcedefinitions", *monitors)
    code, output = deploy("--definitions", str(tmp_path))
    assert code == 0, output
    assert "definitions: monitoring.coreos.com installed" in output
    assert len(kubectl.get("servicemonitors", _SCOPE)) == 6


def test_every_locked_definition_is_what_its_project_released(tmp_path: Path) -> None:
    files = {path.name: path for source in SOURCES for path in fetch_definitions(source)}
    lines = re.findall(r"^([0-9a-f]{64}) \S+/(\S+)$", (TREE / "definitions.lock").read_text(), flags=re.MULTILINE)
    assert len(lines) == 10
    for sum_, name in lines:
        done = subprocess.run(
            ["openssl", "dgst", "-sha256", "-r", files[name]], capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.split()[0] == sum_, name


def test_the_quick_start_works_word_for_word(
    kubectl: Kubectl, environment: dict[str, str], without: Callable[[str], None]
) -> None:
    """The commands by hand, as README.md has them, in its directory and its order."""
    without("postgres-secret")
    without("jwt-secret")
    block = next(b for b in _list_blocks() if "# 1. Create namespaces" in b)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=TREE, env=environment, capture_output=True, text=True,
        timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("secret/jwt-secret created", "statefulset.apps/postgres", "deployment.apps/supplier-service",
                 "deployment.apps/kong", "gateway.gateway.networking.k8s.io/stockade"):  # fmt: skip
        assert step in done.stdout
    wait_until_running(kubectl)


def test_the_commands_of_verification_answer(environment: dict[str, str]) -> None:
    block = next(b for b in _list_blocks() if "# Check all pods are running" in b)
    commands = [line for line in block.splitlines() if line.startswith("kubectl get")]
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run(command.split(), env=environment, capture_output=True, text=True, timeout=30, check=True)
        assert len(done.stdout.splitlines()) > 1, command


def _list_blocks() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", (TREE / "README.md").read_text(), flags=re.DOTALL)


def test_verify_says_what_is_well_and_what_it_could_not_ask(deploy: Run) -> None:
    code, output = deploy(program="verify.sh")
    assert code == 1
    findings = re.findall(r"^verify: (good|BAD): (.*)", output, flags=re.MULTILINE)
    well = {text for mark, text in findings if mark == "good"}
    assert {
        "every pod is ready", "roles and migrations are done", "every Service has a ready pod behind it",
        "both namespaces deny both ways by default", "inventory-system refuses a privileged pod",
        "inventory-edge refuses a privileged pod",
    } <= well, output  # fmt: skip
    assert sum(mark == "BAD" and "cannot be asked" in text for mark, text in findings) == 7, output


def test_verify_leaves_nothing_behind(kubectl: Kubectl, deploy: Run) -> None:
    deploy(program="verify.sh")
    deadline = time.monotonic() + 60
    for space in ("inventory-system", "default"):
        while kubectl.find("pod", "stockade-verify", f"--namespace={space}") is not None:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_a_debug_container_is_let_in_when_it_is_restricted(kubectl: Kubectl, deployed: Deployed) -> None:
    """The way that the documents name, and the ways that they say are refused."""
    pod = kubectl.get("pods", _SCOPE, "--selector=app=user-service")[0]["metadata"]["name"]
    command = ["debug", pod, _SCOPE, "--image=busybox:1.37", "--target=server", "--attach=false"]
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        kubectl(*command, "--profile=general", "--container=general", "--", "sh")
    with pytest.raises(KubectlError, match="violates PodSecurity"):
        kubectl("run", "debug", "--image=alpine", "--restart=Never", _SCOPE)
    kubectl(*command, "--profile=restricted", "--container=restricted", "--", "sh")
    containers = kubectl.get("pod", pod, _SCOPE)["spec"]["ephemeralContainers"]
    assert "restricted" in {container["name"] for container in containers}
    kubectl("delete", "pod", pod, _SCOPE, "--grace-period=1")
    wait_until_running(kubectl)


def _identify(kubectl: Kubectl) -> dict[str, str]:
    """Generation or version of all that must not change, by name."""
    found = kubectl.get("deployments,statefulsets,secrets,services,networkpolicies", "--all-namespaces")
    return {
        f"{item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}": str(
            item["metadata"].get("generation") or item["metadata"]["resourceVersion"]
        )
        for item in found
        if item["metadata"]["namespace"].startswith("inventory-")
    }


def _without_history(manifest: str) -> str:
    item = json.loads(manifest)
    for key in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        item["metadata"].pop(key, None)
    return json.dumps(item)
