"""The pod of k8s/base/database without Kubernetes: its volumes as directories, its containers as processes.

The scripts and the settings are the files of the tree, unchanged; what the pod gets from its mounts and its environment
is given here. Only the port differs, and the name of the account, where this machine's PostgreSQL account has another.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stockade.postgres.accounts import Account, database_account
from tests.k8s.database_programs import Programs

DATABASE_TREE = Path(__file__).parents[2] / "k8s" / "base" / "database"
HOST = "localhost"
PASSWORDS = {"administrator": "the administrator's password", "stockade_backup": "the backup's password"}

_START_LIMIT_S = 60


class ScriptError(Exception):
    """A script answered with an error; the text is what it said."""


@dataclass
class DatabasePod:
    """PostgreSQL, its data volume and its archive, below one directory."""

    root: Path
    programs: Programs
    account: Account = field(default_factory=database_account)
    port: int = 0
    server: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls, root: Path, programs: Programs) -> "DatabasePod":
        """A pod whose volumes are empty."""
        pod = cls(root, programs)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            pod.port = listener.getsockname()[1]
        for name in ("data", "archive", "sockets", "secret", "roles", "tls", "settings", "scripts"):
            (root / name).mkdir()
        for kind in ("scripts", "settings"):
            for file in (DATABASE_TREE / kind).glob("*.*"):
                shutil.copy(file, root / kind / file.name)
        ident = root / "settings" / "pg_ident.conf"
        ident.write_text(ident.read_text().replace("pod    postgres ", f"pod    {pod.account.name} "))
        (root / "secret" / "username").write_text("postgres")
        (root / "secret" / "password").write_text(PASSWORDS["administrator"])
        (root / "roles" / "stockade_backup").write_text(PASSWORDS["stockade_backup"])
        pod._make_certificates()
        for path in [root, *root.rglob("*")]:
            pod.account.own(path)
        (root / "tls" / "tls.key").chmod(0o600)
        return pod

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def data(self) -> Path:
        """PGDATA, a directory inside the data volume."""
        return self.root / "data" / "18" / "docker"

    @property
    def environment(self) -> dict[str, str]:
        """What the manifests set."""
        return {
            "PATH": f"{self.programs.directory}:{os.environ.get('PATH', os.defpath)}",
            "LC_ALL": "C.UTF-8",
            "PGDATA": str(self.data),
            "PGPORT": str(self.port),
            "POSTGRES_ARCHIVE": str(self.archive),
            "POSTGRES_SCRIPTS": str(self.root / "scripts"),
            "POSTGRES_SETTINGS": str(self.root / "settings"),
            "POSTGRES_SOCKETS": str(self.root / "sockets"),
            "POSTGRES_TLS": str(self.root / "tls"),
            "POSTGRES_SECRET": str(self.root / "secret"),
            "POSTGRES_ROLES": str(self.root / "roles"),
        }

    def run(self, script: str, *arguments: str, **variables: str) -> str:
        """Run one of the tree's scripts to its end, as the pod's account; what it said. Raises ScriptError."""
        return self._run(script, arguments, variables)

    def initialize(self) -> str:
        return self.run("initialize.sh")

    def backup(self, *, kept: int = 7) -> str:
        """A base backup as the CronJob takes it: over TLS and with the role's password, where the build knows TLS."""
        variables = {"BACKUPS_KEPT": str(kept), "PGUSER": "stockade_backup"}
        if self.programs.is_complete:
            password = str(self.root / "roles" / "stockade_backup")
            variables |= {"PGHOST": HOST, "PGPASSWORD_FILE": password, "PGSSLMODE": "verify-full"}
            variables |= {"PGSSLROOTCERT": str(self.root / "tls" / "ca.crt")}
        else:
            variables |= {"PGHOST": str(self.root / "sockets")}
        return self._run("backup.sh", (), variables)

    def restore(self, moment: str) -> str:
        """Restore as the Job does it; the server must be down."""
        assert self.server is None, "the StatefulSet must be scaled down first"
        self._fit_settings()
        return self.run("restore.sh", RESTORE_TIME=moment)

    def start(self) -> None:
        """Start the server as its container does, and wait until it answers."""
        self._fit_settings()
        command = ["/bin/sh", str(self.root / "scripts" / "start.sh")]
        with (self.root / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                command, env=self.environment, cwd="/", stdout=log, stderr=log, start_new_session=True,
                user=self.account.switch_uid, group=self.account.switch_gid, extra_groups=self.account.switch_groups,
            )  # fmt: skip
        deadline = time.monotonic() + _START_LIMIT_S
        while self._call(["pg_isready", "-q", "-h", str(self.root / "sockets")], self.environment, 10).returncode:
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise ScriptError((self.root / "server.log").read_text()[-4000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server as the pod's preStop hook does; nothing where none runs."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """What a lost node does: no process of the server gets another instruction."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self._end(signal.SIGKILL)
            # The sessions of a killed server have process groups of their own; they end when they see it gone.
            time.sleep(0.5)

    def sql(self, statement: str, *, database: str = "postgres", role: str = "postgres") -> str:
        """What psql prints for a statement, through the socket. Raises ScriptError."""
        options = ["-h", str(self.root / "sockets"), "-U", role, "-d", database]
        return self.psql(options, statement, {})

    def psql(self, options: list[str], statement: str, variables: Mapping[str, str]) -> str:
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *options, "-c", statement]
        done = self._call(command, {**self.environment, **variables}, 60)
        if done.returncode != 0:
            raise ScriptError(done.stdout)
        return done.stdout.strip()

    def _run(self, script: str, arguments: Sequence[str], variables: Mapping[str, str]) -> str:
        command = ["/bin/sh", str(self.root / "scripts" / script), *arguments]
        done = self._call(command, {**self.environment, **variables}, 90)
        if done.returncode != 0:
            raise ScriptError(done.stdout)
        return done.stdout

    def _call(
        self, command: list[str], environment: Mapping[str, str], timeout_s: int
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=dict(environment), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout_s, check=False, start_new_session=True,
            user=self.account.switch_uid, group=self.account.switch_gid, extra_groups=self.account.switch_groups,
        )  # fmt: skip

    def _fit_settings(self) -> None:
        """The port, and what the wheel's build of PostgreSQL does not know."""
        settings = self.root / "settings" / "postgresql.conf"
        text = settings.read_text().replace("port = 5432", f"port = {self.port}")
        if not self.programs.is_complete:
            text = text.replace("ssl = on", "ssl = off").replace("wal_compression = lz4", "wal_compression = on")
        settings.write_text(text)

    def _end(self, number: signal.Signals) -> None:
        if self.server is not None:
            if self.server.poll() is None:
                self.server.send_signal(number)
            self.server.wait(timeout=60)
            self.server = None

    def _make_certificates(self) -> None:
        """An authority and a certificate for the server, as deploy.sh makes them."""
        tls = self.root / "tls"
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority of the drill"]
        request = ["-keyout", "tls.key", "-out", "tls.csr", "-subj", f"/CN={HOST}"]
        (tls / "names").write_text(f"subjectAltName=DNS:{HOST}\n")
        sign = ["-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tls.crt"]
        for command in (
            ["openssl", "req", "-x509", *curve, *authority],
            ["openssl", "req", "-new", *curve[:-2], *request],
            ["openssl", "x509", "-req", *sign, "-days", "2", "-extfile", "names"],
        ):
            subprocess.run(command, cwd=tls, check=True, capture_output=True, timeout=30)
