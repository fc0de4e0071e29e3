"""deploy.sh: what it looks at, in which order it goes, and that each way to fail ends in one clear line and a safe state.

Most of it runs against a scripted kubectl (tests/k8s/scripted_kubectl.py), because clusters that are old, broken or closed
cannot be had at will; rendering and OpenSSL are real. The same script against a real API server: tests/cluster/test_deploy.py.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s.tools.rendering import TREE, find_kubectl, render
from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import NAMES, SCHEMAS
from tests.k8s import scripted_kubectl
from tests.k8s.scripted_kubectl import Script

DOCUMENTS = [TREE / "README.md", TREE.parent / "docs/TROUBLESHOOTING_GUIDE.md"]
SECRETS = {
    "postgres-secret": {"host": "43", "username": "8", "password": "48"},
    "jwt-secret": {"secret": "64"},
}
# What every cluster knows, as `kubectl api-resources` prints it, and what only some do.
BUILT_IN = """
namespaces v1 false Namespace|serviceaccounts v1 true ServiceAccount|configmaps v1 true ConfigMap|services v1 true Service
persistentvolumeclaims v1 true PersistentVolumeClaim|limitranges v1 true LimitRange|resourcequotas v1 true ResourceQuota
deployments apps/v1 true Deployment|statefulsets apps/v1 true StatefulSet|jobs batch/v1 true Job|cronjobs batch/v1 true CronJob
networkpolicies networking.k8s.io/v1 true NetworkPolicy|poddisruptionbudgets policy/v1 true PodDisruptionBudget
horizontalpodautoscalers autoscaling/v2 true HorizontalPodAutoscaler|roles rbac.authorization.k8s.io/v1 true Role
rolebindings rbac.authorization.k8s.io/v1 true RoleBinding|clusterroles rbac.authorization.k8s.io/v1 false ClusterRole
clusterrolebindings rbac.authorization.k8s.io/v1 false ClusterRoleBinding
"""
CERT_MANAGER = ["issuers cert-manager.io/v1 true Issuer", "certificates cert-manager.io/v1 true Certificate"]
BUILT_IN_KINDS = [line.strip() for line in BUILT_IN.replace("|", "\n").splitlines() if line.strip()]


class Place:
    """A directory with the scripted kubectl, and deploy.sh run beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = Script(kubectl=find_kubectl(), known=list(BUILT_IN_KINDS), secrets=dict(SECRETS))
        programs = directory / "bin"
        programs.mkdir()
        program = programs / "kubectl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {scripted_kubectl.__file__} "$@"\n')
        program.chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SCRIPT": str(directory),
            "TMPDIR": str(directory),
            "HOME": str(directory),
        }

    def start(self, *arguments: str, tree: Path = TREE) -> "subprocess.Popen[str]":
        self.script.write(self.directory)
        return subprocess.Popen(
            [str(tree / "deploy.sh"), *arguments], env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # A job in the background of a script is born deaf to SIGINT, and a shell cannot get its hearing back.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no other thread forks here
        )  # fmt: skip

    def deploy(self, *arguments: str, tree: Path = TREE) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(*arguments, tree=tree)
        output, error = process.communicate(timeout=60)
        return process.returncode, output, error

    def refuse(self, *arguments: str, code: int = 1, tree: Path = TREE) -> str:
        """The one line with which it stops. Nothing of what it needed on the way is left."""
        returned, output, error = self.deploy(*arguments, tree=tree)
        assert returned == code, output + error
        lines = error.strip().splitlines()
        assert len(lines) == 1, error
        assert not list(self.directory.glob("tmp.*"))
        return lines[0]

    @property
    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def changes(self) -> list[str]:
        """Calls that change something in the cluster."""
        asked = [call.replace("--request-timeout=60s ", "") for call in self.calls]
        return [
            c
            for c in asked
            if c.startswith(("apply", "create", "delete")) and not re.search(r"dry-run|--validate=false", c)
        ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_goes_step_by_step(place: Place) -> None:
    code, output, error = place.deploy("--overlay", "minimal")
    assert (code, error) == (0, ""), output
    selectors = [re.sub(r".*--selector=(app.kubernetes.io/)?", "", call) for call in place.changes]
    assert [s for s in selectors if "secret" not in s] == [
        "!app.kubernetes.io/component", "component=database",
        "delete job postgres-bootstrap --namespace=inventory-system --ignore-not-found --cascade=foreground",
        "name=postgres-bootstrap",
        "delete job stockade-migrate --namespace=inventory-system --ignore-not-found --cascade=foreground",
        "name=stockade-migrate", "component=service", "component=gateway",
    ]  # fmt: skip
    made = [call.split()[3] for call in place.changes if "secret" in call]
    assert made == ["database-roles", "service-secrets", "postgres-tls"]
    assert all("--server-side" in call for call in place.changes if call.startswith("apply"))


def test_a_second_run_makes_no_secret_again(place: Place) -> None:
    assert place.deploy("--overlay", "minimal")[0] == 0
    before = {path: path.read_bytes() for path in place.directory.glob("made/*/*")}
    assert place.deploy("--overlay", "minimal")[0] == 0
    assert len([call for call in place.changes if "secret" in call]) == 3
    assert {path: path.read_bytes() for path in place.directory.glob("made/*/*")} == before


def test_the_secrets_that_it_makes_are_what_the_pods_mount(place: Place) -> None:
    """A key more than any pod mounts would be as wrong as one less."""
    code, output, error = place.deploy("--overlay", "minimal")
    assert code == 0
    made = place.directory / "made"
    roles = {OWNER_ROLE, "stockade_backup", *map(role_of, SCHEMAS)}
    assert {path.name for path in (made / "database-roles").iterdir()} == roles
    assert {path.name for path in (made / "service-secrets").iterdir()} == set(NAMES)
    values = [path.read_text() for name in ("database-roles", "service-secrets") for path in (made / name).iterdir()]
    assert len(set(values)) == len(values) == 12
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in values)
    assert not [value for value in values if value in output + error + "".join(place.calls)]


def test_the_certificate_of_the_database_is_one_that_clients_accept(place: Place) -> None:
    assert place.deploy("--overlay", "minimal")[0] == 0
    made = place.directory / "made/postgres-tls"
    assert {path.name for path in made.iterdir()} == {"tls.crt", "tls.key", "ca.crt"}
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made / "tls.crt", made / "tls.key")
    client = ssl.create_default_context(cafile=made / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _shake_hands(server, client, "postgres.inventory-system.svc.cluster.local")
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(server, client, "elsewhere.inventory-system.svc.cluster.local")


@pytest.mark.parametrize("arguments", [["--overlay", "nope"], ["--overlay"], ["--timeout", "soon"], ["--quickly"]])
def test_wrong_usage_is_told_from_failure(place: Place, arguments: list[str]) -> None:
    assert "see deploy.sh --help" in place.refuse(*arguments, code=2)
    assert place.calls == []


@pytest.mark.parametrize("missing", ["kubectl", "openssl"])
def test_it_needs_its_tools(place: Place, missing: str) -> None:
    programs = place.directory / "few"
    programs.mkdir()
    for name in {"bash", "cat", "cut", "dirname", "env", "mktemp", "rm", "kubectl", "openssl"} - {missing}:
        found = shutil.which(name, path=place.environment["PATH"])
        assert found, name
        (programs / name).symlink_to(found)
    place.environment["PATH"] = str(programs)
    assert f"{missing} is not on the PATH" in place.refuse("--overlay", "minimal")


@pytest.mark.parametrize(
    ("break_it", "line"),
    [
        (lambda s: s.refusals.update({"get --raw": "dial tcp: refused"}), "the cluster does not answer .*: dial tcp: refused"),
        (lambda s: setattr(s, "server_minor", "34"), "runs Kubernetes 1.34, and 1.35 is the oldest .*: upgrade it"),
        (lambda s: setattr(s, "client_minor", "32"), "kubectl 1.32 is too far from the cluster's 1.37: use 1.36 to 1.38"),
        (lambda s: s.denied.append("create networkpolicies"), "you may not create networkpolicies.*ask for cluster-admin"),
        (lambda s: s.denied.append("create secrets"), "you may not create secrets"),
        (lambda s: s.known.clear(), "does not tell what it knows"),
    ],
)  # fmt: skip
def test_what_can_be_known_is_known_before_the_first_change(
    place: Place, break_it: Callable[[Script], None], line: str
) -> None:
    break_it(place.script)
    assert re.search(line, place.refuse("--overlay", "minimal"))
    assert place.changes == []


@pytest.mark.parametrize(
    ("overlay", "known", "line"),
    [
        ("base", [], "cert-manager is not installed and base needs it"),
        ("staging", CERT_MANAGER, "staging still says .*example.com"),
        ("base", CERT_MANAGER, "cannot fetch|has no gateway.networking.k8s.io_gatewayclasses.yaml"),
    ],
)
def test_an_overlay_that_cannot_work_here_is_not_begun(place: Place, overlay: str, known: list[str], line: str) -> None:
    place.script.known += known
    (place.directory / "empty").mkdir()
    assert re.search(line, place.refuse("--overlay", overlay, "--definitions", str(place.directory / "empty")))
    assert place.changes == []


def test_a_definition_with_another_hash_is_not_installed(place: Place) -> None:
    place.script.known += CERT_MANAGER
    definitions = place.directory / "definitions"
    definitions.mkdir()
    for name in re.findall(r"[^/]+\.yaml$", (TREE / "definitions.lock").read_text(), flags=re.MULTILINE):
        (definitions / name).write_text("kind: SomethingElse\n")
    assert "is not the file of definitions.lock" in place.refuse("--definitions", str(definitions))
    assert place.changes == []


@pytest.mark.parametrize("name", ["postgres-secret", "jwt-secret"])
def test_a_secret_that_is_not_ours_to_make_is_asked_for_by_its_command(place: Place, name: str) -> None:
    del place.script.secrets[name]
    line = place.refuse("--overlay", "minimal")
    assert f"kubectl create secret generic {name} --from-" in line
    assert line.endswith("-n inventory-system")
    assert [call.rpartition("=")[2] for call in place.changes] == ["!app.kubernetes.io/component"], (
        "only the namespaces"
    )


@pytest.mark.parametrize(
    ("name", "keys", "line"),
    [
        ("postgres-secret", {"host": "43", "password": "48"}, "lacks the key username"),
        (
            "postgres-secret",
            {"host": "43", "username": "8", "password": "8"},
            "has 8 characters as its password and needs 12",
        ),
        ("jwt-secret", {"secret": "15 example"}, "has the example of the documentation as its secret"),
        ("database-roles", {"stockade_owner": "64"}, "lacks the key stockade_backup"),
        ("postgres-tls", {"tls.crt": "9", "tls.key": "9"}, "lacks the key ca.crt"),
    ],
)
def test_a_secret_that_would_fail_later_is_named_now(place: Place, name: str, keys: dict[str, str], line: str) -> None:
    place.script.secrets[name] = keys
    assert re.search(f"the Secret {name} {line}", place.refuse("--overlay", "minimal"))
    assert not [call for call in place.changes if "component=" in call]


def test_a_step_that_the_api_server_refuses_is_the_last(place: Place) -> None:
    place.script.refusals = {"component=service": 'admission webhook "x" denied the request'}
    assert place.refuse("--overlay", "minimal").endswith('stopped: services: admission webhook "x" denied the request')
    assert not [call for call in place.changes if "component=gateway" in call]


def test_what_somebody_changed_by_hand_is_not_taken_back_unasked(place: Place) -> None:
    conflict = 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
    place.script.refusals = {"--server-side --filename": conflict}
    assert ".spec.replicas: somebody changed it by hand; --force takes it back" in place.refuse("--overlay", "minimal")
    assert place.deploy("--overlay", "minimal", "--force")[0] == 0


def test_a_job_that_fails_is_quoted(place: Place) -> None:
    place.script.job, place.script.log = "7 Failed,", "stockade: postgres refuses the user or the password\n"
    line = place.refuse("--overlay", "minimal")
    assert "postgres-bootstrap failed: stockade: postgres refuses the user or the password: put that right" in line
    assert not [call for call in place.changes if "stockade-migrate" in call]


def test_waiting_has_an_end(place: Place) -> None:
    place.script.unfinished = ["postgres"]
    line = place.refuse("--overlay", "minimal", "--timeout", "1")
    assert "database not ready after 1 s: postgres 1/2" in line
    assert not [call for call in place.changes if "postgres-bootstrap" in call]


def test_a_job_that_never_ends_is_waited_for_no_longer_than_told(place: Place) -> None:
    place.script.job = "0 "
    assert "postgres-bootstrap has not ended after 1 s: no log yet" in place.refuse(
        "--overlay", "minimal", "--timeout", "1"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_told_and_can_be_gone_on_from(place: Place, number: signal.Signals) -> None:
    place.script.unfinished = ["postgres"]
    process = place.start("--overlay", "minimal")
    deadline = time.monotonic() + 30
    while not any("deployments,statefulsets" in call for call in place.calls):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "interrupted during the wait for database: what was done stays" in error
    assert not list(place.directory.glob("tmp.*"))
    place.script.unfinished = []
    assert place.deploy("--overlay", "minimal")[0] == 0


@pytest.mark.parametrize("overlay", ["minimal", "base", "staging", "production"])
def test_a_dry_run_changes_nothing_and_names_every_object(place: Place, overlay: str) -> None:
    place.script.secrets = {}
    place.script.refusals = {"get namespace": "not found"}
    place.script.known += [*CERT_MANAGER, "scaledobjects keda.sh/v1alpha1 true ScaledObject"]
    code, output, error = place.deploy("--overlay", overlay, "--dry-run")
    assert (code, error) == (0, ""), output
    assert place.changes == []
    told = sorted(re.findall(r"^deploy:   (\w+/\S+)$", output, flags=re.MULTILINE))
    directory = "base" if overlay == "base" else f"overlays/{overlay}"
    assert told == sorted(f"{m['kind']}/{m['metadata']['name']}" for m in render(directory))
    assert output.endswith("deploy: nothing was changed\n")


def test_only_the_secrets_is_only_the_secrets(place: Place) -> None:
    assert place.deploy("--overlay", "minimal", "--only-secrets")[0] == 0
    assert len(place.changes) == 4
    assert not [call for call in place.changes if "component=" in call]


def test_an_overlay_of_ones_own_is_a_directory(place: Place) -> None:
    own = place.directory / "own"
    own.mkdir()
    minimal = os.path.relpath(TREE / "overlays/minimal", own)
    (own / "kustomization.yaml").write_text(f"resources: [{minimal}]\nimages: [{{name: stockade, newTag: 9.9.9}}]\n")
    code, output, _ = place.deploy("--overlay", str(own), "--dry-run")
    assert code == 0
    assert f"{own}: " in output


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["deploy.sh", "verify.sh"])
def test_shellcheck_finds_nothing(name: str) -> None:
    done = subprocess.run(["shellcheck", "-x", TREE / name], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout + done.stderr == ""


def test_the_readme_has_the_headings_of_the_specification() -> None:
    headings = re.findall(r"^#+ (.+)$", _without_code(TREE / "README.md"), flags=re.MULTILINE)
    assert [h for h in headings if h != "What differs from the specification, and why"] == [
        "Kubernetes Manifests for Inventory Stock Management System", "📋 Overview", "🗂️ Directory Structure",
        "✅ Implementation Status", "Base Infrastructure", "Monitoring Stack", "Logging Stack", "Security (Zero Trust)", "GitOps",
        "🚀 Deployment Instructions", "Prerequisites", "Quick Start", "Verification", "🔒 Zero Trust Security Features",
        "1. Pod Security Standards", "2. Network Policies", "3. RBAC", "4. Secrets Management", "5. Service Mesh",
        "📊 Auto-Scaling Configuration", "Horizontal Pod Autoscaler (HPA)", "Example Scaling Behavior",
        "📈 Monitoring & Observability", "Prometheus Metrics Collected", "Grafana Dashboards", "Alerts Configured",
        "🪵 Logging with OpenSearch", "Log Collection", "Log Storage", "Log Access", "🔧 Troubleshooting", "Common Issues",
        "📚 Additional Resources", "🆘 Support",
    ]  # fmt: skip


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_name_what_there_is(path: Path) -> None:
    """Directories that are applied, files that are linked to, objects that are asked about."""
    text = path.read_text()
    for directory in re.findall(r"-k (?:k8s/)?(base/[\w/-]+|overlays/[\w-]+)", text):
        assert (TREE / directory / "kustomization.yaml").is_file(), directory
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (path.parent / link).exists(), link
    objects = {f"{m['kind'].lower()}/{m['metadata']['name']}" for m in render("base")}
    for kind, name in re.findall(r"(?<![\w-])(deployment|statefulset|job|service)/([a-z-]+)", _code_of(text)):
        assert f"{kind}/{name}" in objects, f"{kind}/{name}"


def test_the_tree_of_the_readme_is_there() -> None:
    tree = (TREE / "README.md").read_text().split("```")[1]
    names = re.findall(r"[├└]── ([\w.-]+)", tree)
    assert len(names) > 25
    for name in names:
        assert list(TREE.rglob(name)), name


def test_what_is_ticked_is_there_and_what_is_not_is_not() -> None:
    lines = {text: mark == "x" for mark, text in re.findall(r"- \[(.)\] (.+)", (TREE / "README.md").read_text())}
    places = {"Prometheus Instance": "monitoring", "OpenSearch Cluster": "logging", "Falco (Runtime Security)": "security",
              "ArgoCD Installation": "argocd", "Inventory Service": "base/services/inventory-service",
              "API Gateway (Kong)": "base/gateway", "Ingress Controller": "base/ingress"}  # fmt: skip
    for line, directory in places.items():
        assert lines[line] == (TREE / directory).is_dir(), line


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bool:
    """Both ends of a TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version() is not None


def _code_of(text: str) -> str:
    return "\n".join(text.split("```")[1::2])


def _without_code(path: Path) -> str:
    return "\n".join(path.read_text().split("```")[0::2])
