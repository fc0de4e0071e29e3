"""Who may enter the database of the cluster, and how: pg_hba.conf and pg_ident.conf on a real server with TLS.

The Jobs run here as well, with the environment that their manifests give them, because they are the first to enter.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import SCHEMAS
from tests.k8s.database_pod import HOST, PASSWORDS, DatabasePod, ScriptError
from tests.k8s.database_programs import find_programs

ROLE_PASSWORDS = {role: f"{role} of the tests" for role in (OWNER_ROLE, *map(role_of, SCHEMAS))}


@pytest.fixture(scope="module")
def pod() -> Iterator[DatabasePod]:
    """A running server in which both Jobs have run, twice."""
    root = Path(tempfile.mkdtemp(prefix="stockade-access-"))
    root.chmod(0o711)
    pod = None
    try:
        programs = find_programs(root)
        if not programs.is_complete:
            pytest.skip("no PostgreSQL 18 with OpenSSL: neither on this machine nor to be fetched")
        (root / "pod").mkdir()
        pod = DatabasePod.create(root / "pod", programs)
        pod.initialize()
        pod.start()
        for role, password in ROLE_PASSWORDS.items():
            (root / role).write_text(password)
        for _ in range(2):
            _run_job(pod, "bootstrap", "--passwords", str(root), user="postgres", password=PASSWORDS["administrator"])
            _run_job(pod, "migrate", user=OWNER_ROLE, password=ROLE_PASSWORDS[OWNER_ROLE])
        yield pod
    finally:
        if pod is not None:
            pod.kill()
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_service_enters_its_database_with_its_password_over_tls(pod: DatabasePod, schema: str) -> None:
    role = role_of(schema)
    assert _enter(pod, role, ROLE_PASSWORDS[role]) == f"{role} TLSv1.3"


def test_a_wrong_password_is_refused(pod: DatabasePod) -> None:
    with pytest.raises(ScriptError, match="password authentication failed"):
        _enter(pod, "stockade_order", ROLE_PASSWORDS["stockade_user"])


def test_nobody_enters_without_tls(pod: DatabasePod) -> None:
    for role, password in (
        ("stockade_order", ROLE_PASSWORDS["stockade_order"]),
        ("postgres", PASSWORDS["administrator"]),
    ):
        with pytest.raises(ScriptError, match=r"no pg_hba\.conf entry for host .* no encryption"):
            _enter(pod, role, password, mode="disable")


def test_a_client_refuses_a_server_whose_certificate_names_another(pod: DatabasePod) -> None:
    with pytest.raises(ScriptError, match="does not match host name"):
        _enter(pod, "stockade_order", ROLE_PASSWORDS["stockade_order"], host="127.0.0.1")


def test_a_service_enters_no_other_database(pod: DatabasePod) -> None:
    for database in ("postgres", "template1"):
        with pytest.raises(ScriptError, match=r"pg_hba\.conf rejects"):
            _enter(pod, "stockade_order", ROLE_PASSWORDS["stockade_order"], database=database)


def test_the_backup_role_copies_and_reads_nothing(pod: DatabasePod) -> None:
    for database in ("postgres", "stockade"):
        with pytest.raises(ScriptError, match=r"pg_hba\.conf rejects"):
            _enter(pod, "stockade_backup", PASSWORDS["stockade_backup"], database=database)
    assert "verified" in pod.backup()


def test_a_service_cannot_copy_the_database(pod: DatabasePod) -> None:
    with pytest.raises(ScriptError, match=r"no pg_hba\.conf entry for replication"):
        pod.run("backup.sh", BACKUPS_KEPT="1", **_over_tls(pod, "stockade_order", ROLE_PASSWORDS["stockade_order"]))


def test_the_monitor_enters_through_the_socket_only_and_reads_statistics_only(pod: DatabasePod) -> None:
    assert int(pod.sql("SELECT count(*) FROM pg_stat_statements", role="stockade_monitor")) > 0
    assert int(pod.sql("SELECT count(query) FROM pg_stat_activity", role="stockade_monitor")) > 0
    with pytest.raises(ScriptError, match="permission denied for database"):
        pod.sql("SELECT 1", role="stockade_monitor", database="stockade")
    with pytest.raises(ScriptError, match="permission denied for table pg_authid"):
        pod.sql("SELECT rolpassword FROM pg_authid", role="stockade_monitor")
    with pytest.raises(ScriptError, match=r"pg_hba\.conf rejects"):
        _enter(pod, "stockade_monitor", "anything", database="postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to enter as another account")
def test_the_exporters_account_is_the_monitor_and_nobody_else(pod: DatabasePod) -> None:
    if pod.account.name == "nobody":
        pytest.skip("PostgreSQL itself runs as nobody here")
    (pod.root / "sockets").chmod(0o755)
    assert _enter_as_account("nobody", pod, "stockade_monitor") == "stockade_monitor"
    for role in ("postgres", "stockade_order", "stockade_backup"):
        with pytest.raises(ScriptError, match="Peer authentication failed"):
            _enter_as_account("nobody", pod, role)
    with pytest.raises(ScriptError, match="Peer authentication failed"):
        _enter_as_account("daemon", pod, "stockade_monitor")


async def test_the_log_holds_no_password_and_no_value(pod: DatabasePod) -> None:
    marker = "a customer's address"
    address = f"postgresql://{HOST}:{pod.port}/stockade?sslmode=verify-full&sslrootcert={pod.root / 'tls' / 'ca.crt'}"
    connection = await asyncpg.connect(address, user="postgres", password=PASSWORDS["administrator"])
    try:
        await connection.fetch("SELECT pg_sleep(1.1), $1::text", marker)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.fetch("SELECT 1 / (length($1::text) - length($1::text))", marker)
    finally:
        await connection.close()
    log = (pod.root / "server.log").read_text(errors="replace")
    assert "pg_sleep" in log, "slow statements are logged"
    assert "division by zero" in log, "errors are logged"
    assert marker not in log
    for secret in (*PASSWORDS.values(), *ROLE_PASSWORDS.values()):
        assert secret not in log


def _enter(
    pod: DatabasePod,
    role: str,
    password: str,
    *,
    database: str = "stockade",
    mode: str = "verify-full",
    host: str = HOST,
) -> str:
    variables = _over_tls(pod, role, password) | {"PGSSLMODE": mode, "PGHOST": host}
    statement = "SELECT current_user || ' ' || version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    return pod.psql(["-d", database], statement, variables)


def _over_tls(pod: DatabasePod, role: str, password: str) -> dict[str, str]:
    return {
        "PGHOST": HOST,
        "PGUSER": role,
        "PGPASSWORD": password,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(pod.root / "tls" / "ca.crt"),
    }


def _enter_as_account(account: str, pod: DatabasePod, role: str) -> str:
    command = [
        "psql", "-X", "-A", "-t", "-h", str(pod.root / "sockets"), "-U", role, "-d", "postgres", "-c", "SELECT current_user",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env=pod.environment,
        cwd="/",
        user=account,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise ScriptError(done.stderr)
    return done.stdout.strip()


def _run_job(pod: DatabasePod, *arguments: str, user: str, password: str) -> None:
    """What a Job's container does; its address differs in host and port only."""
    (pod.root / "job-user").write_text(user)
    (pod.root / "job-password").write_text(password)
    certificate = pod.root / "tls" / "ca.crt"
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "STOCKADE_DATABASE_URL": (
            f"postgresql://{HOST}:{pod.port}/stockade?sslmode=verify-full&sslrootcert={certificate}"
        ),
        "STOCKADE_DATABASE_USER_FILE": str(pod.root / "job-user"),
        "STOCKADE_DATABASE_PASSWORD_FILE": str(pod.root / "job-password"),
    }
    command = [sys.executable, "-m", "stockade", *arguments]
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
