"""The image runs as a pod would run it: a number for a user, no capability, a read-only root, only /tmp to write to."""

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stockade import __version__
from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import SERVICES
from tests.conftest import ServerThread
from tests.e2e.processes import ADMIN_EMAIL, ADMIN_PASSWORD, free_port, write_secrets
from tests.image.archives import Image, unpack_image
from tests.image.containers import MEMORY_LIMIT_BYTES, USER, WRITABLE, Container, Runtime, find_runc

# Whoever comes first builds the image, with everything to be fetched on a new machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

READY_MUST_S = 2
READY_BOUND_S = 20
"""What the test insists on: two seconds are promised for a quiet machine, and that of a test is busy with other tests."""

PYTHON = ("/opt/stockade/bin/python3", "-I", "-c")
NAMES = [service.name for service in SERVICES]


@dataclass
class Place:
    """A database in an ordinary PostgreSQL on TCP, and a directory of secrets that the containers' user can read."""

    address: str
    admin_user: str
    directory: Path

    def access(self, role: str) -> dict[str, str]:
        return {
            "STOCKADE_DATABASE_URL": self.address,
            "STOCKADE_DATABASE_USER": role,
            "STOCKADE_DATABASE_PASSWORD_FILE": f"/etc/stockade/roles/{role}",
        }


@dataclass
class Served:
    """A service in its container, and how long it took from the start of runc to ready."""

    url: str
    container: Container
    ready_s: float


@pytest.fixture(scope="module")
def runtime(run_folder: Path, image: Image) -> Generator[Runtime]:
    runc = find_runc(run_folder / "runc")
    folder = Path(tempfile.mkdtemp(prefix="stockade-image-"))
    # Files of its own, because runc adds to them what it mounts over: /etc/hosts and the like.
    unpack_image(image, folder / "root")
    yield Runtime(runc, image, folder / "root", folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def place() -> Generator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="stockade-image-"))
    directory.chmod(0o711)
    thread = ServerThread(directory / "postgres")
    secret = directory / "secrets"
    secret.mkdir(0o755)
    write_secrets(secret)
    url = thread.server.url
    user, password = url.partition("://")[2].partition("@")[0].split(":")
    (secret / "admin").write_text(urllib.parse.unquote(password))
    try:
        with _on_tcp(thread.server.socket_directory) as port:
            yield Place(f"postgresql://127.0.0.1:{port}/stockade", user, secret)
    finally:
        thread.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def prepared(runtime: Runtime, place: Place) -> Place:
    """After the two jobs that come before every service, each run twice, as a Job may be."""
    admin = place.access(place.admin_user) | {"STOCKADE_DATABASE_PASSWORD_FILE": "/etc/stockade/admin"}
    for number in range(2):
        command = ["bootstrap", "--passwords", "/etc/stockade/roles"]
        code, said = runtime.run(f"bootstrap-{number}", command, environment=admin, secrets=place.directory)
        assert code == 0, said
        owner = place.access(OWNER_ROLE)
        code, said = runtime.run(f"migrate-{number}", ["migrate"], environment=owner, secrets=place.directory)
        assert code == 0, said
        assert ("nothing to do" in said) == (number == 1), said
    return place


@pytest.fixture(scope="module")
def fleet(runtime: Runtime, prepared: Place) -> Generator[dict[str, Served]]:
    """All five services, started one after the other."""
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in NAMES}
    everywhere = {f"STOCKADE_{name.upper().replace('-', '_')}_URL": url for name, url in urls.items()}
    served: dict[str, Served] = {}
    try:
        for service in SERVICES:
            environment = everywhere | prepared.access(role_of(service.schema))
            environment["STOCKADE_PORT"] = urls[service.name].rpartition(":")[2]
            environment["STOCKADE_SERVICE_SECRET_FILE"] = f"/etc/stockade/services/{service.name}"
            if service.name == "user-service":
                environment["STOCKADE_JWT_SECRET_FILE"] = "/etc/stockade/jwt"
                environment["STOCKADE_SERVICE_SECRETS_DIRECTORY"] = "/etc/stockade/services"
            started = time.monotonic()
            command = ["serve", service.name]
            container = runtime.start(service.name, command, environment=environment, secrets=prepared.directory)
            served[service.name] = Served(urls[service.name], container, 0)
            _wait_until_ready(urls[service.name], container)
            served[service.name].ready_s = time.monotonic() - started
        yield served
    finally:
        codes = {name: service.container.stop() for name, service in served.items()}
    assert codes == dict.fromkeys(NAMES, 0), "a stop signal ends every service cleanly"


def test_it_prints_its_version(runtime: Runtime) -> None:
    assert runtime.run("version", ["version"]) == (0, f"{__version__}\n")


def test_it_says_what_it_can_do_without_an_argument(runtime: Runtime, image: Image) -> None:
    code, said = runtime.run("help", image.configuration["config"]["Cmd"])

    assert code == 0
    assert "serve" in said
    assert "migrate" in said


def test_it_refuses_a_service_that_does_not_exist(runtime: Runtime) -> None:
    code, said = runtime.run("wrong", ["serve", "billing-service"])

    assert code == 2
    assert "billing-service" in said


def test_a_missing_secret_is_one_line_that_names_it(runtime: Runtime) -> None:
    environment = {"STOCKADE_DATABASE_URL": "postgresql://127.0.0.1:1/stockade"}
    environment["STOCKADE_DATABASE_PASSWORD_FILE"] = "/etc/stockade/database/password"

    code, said = runtime.run("secretless", ["serve", "order-service"], environment=environment)

    assert code == 2
    assert said.count("\n") == 1
    assert "/etc/stockade/database/password" in said


def test_there_is_no_shell(runtime: Runtime) -> None:
    code, said = runtime.run("shell", [], entrypoint=("/bin/sh", "-c", "exit 0"))

    assert code != 0
    assert "no such file" in said


def test_only_tmp_can_be_written_to(runtime: Runtime) -> None:
    program = """
import json, pathlib
said = {}
for directory in ("/", "/etc", "/etc/stockade", "/opt/stockade", "/usr/bin", "/run", "/var/lib", "/tmp"):
    try:
        (pathlib.Path(directory) / "written").write_text("x")
        said[directory] = "written"
    except OSError as error:
        said[directory] = error.strerror
print(json.dumps(said))
"""
    code, said = runtime.run("writer", [program], entrypoint=PYTHON)

    assert code == 0, said
    outcome = json.loads(said)
    assert outcome.pop(WRITABLE) == "written"
    assert set(outcome.values()) == {"Read-only file system"}


@pytest.mark.parametrize("name", NAMES)
def test_a_service_is_ready_soon(fleet: dict[str, Served], name: str) -> None:
    print(
        f"{name}: ready {fleet[name].ready_s:.2f} s after runc was started (must: {READY_MUST_S} s on a quiet machine)"
    )

    assert fleet[name].ready_s < READY_BOUND_S


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_no_rights_that_it_does_not_need(fleet: dict[str, Served], name: str) -> None:
    process = Path("/proc") / str(fleet[name].container.process_id)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)

    assert status["Uid"].split() == [str(USER)] * 4
    assert status["Gid"].split() == [str(USER)] * 4
    assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    resident = int(status["VmRSS"].split()[0]) * 1024
    print(f"{name}: {resident / 2**20:.0f} MiB resident, limit {MEMORY_LIMIT_BYTES / 2**20:.0f}")
    assert resident < MEMORY_LIMIT_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_service_lives_and_counts(fleet: dict[str, Served], name: str) -> None:
    assert _ask(fleet[name].url, "GET", "/health")[0] == 200
    status, metrics = _ask(fleet[name].url, "GET", "/metrics")
    assert status == 200
    assert f'service="{name}"' in metrics


def test_services_in_their_containers_work_together(
    fleet: dict[str, Served], runtime: Runtime, prepared: Place
) -> None:
    """An account made by the image's command line signs in, and what it makes in one service another one knows."""
    owner = prepared.access(OWNER_ROLE) | {"STOCKADE_USER_PASSWORD": ADMIN_PASSWORD}
    command = ["user", "create", ADMIN_EMAIL, "--name", "Boss", "--role", "admin"]
    code, said = runtime.run("account", command, environment=owner, secrets=prepared.directory)
    assert code == 0, said
    login = {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD}
    token = json.loads(_ask(fleet["user-service"].url, "POST", "/api/v1/auth/login", login)[1])["access_token"]
    catalog, inventory = fleet["product-catalog-service"].url, fleet["inventory-service"].url

    assert _ask(catalog, "POST", "/api/v1/products", {"sku": "TEA-1", "name": "Green tea"}, token)[0] == 201
    assert _ask(inventory, "POST", "/api/v1/warehouses", {"code": "MAIN", "name": "Main"}, token)[0] == 201
    line = {"sku": "TEA-1", "warehouse": "MAIN", "quantity": "5", "unit_cost": "1"}
    assert _ask(inventory, "POST", "/api/v1/movements", {"type": "receipt", "lines": [line]}, token)[0] == 201

    status, said = _ask(inventory, "GET", "/api/v1/stock?sku=TEA-1", token=token)
    assert status == 200
    assert json.loads(said)["items"][0]["available"] == "5"


def test_a_service_logs_json_lines_and_no_secret(fleet: dict[str, Served], prepared: Place) -> None:
    text = "".join(service.container.log.read_text() for service in fleet.values())
    for line in text.splitlines():
        assert "@timestamp" in json.loads(line), line
    files = [path for path in prepared.directory.rglob("*") if path.is_file()]
    assert len(files) > 10
    for file in files:
        assert file.read_text() not in text, f"{file.name} is in a log"


@contextlib.contextmanager
def _on_tcp(socket_directory: Path) -> Generator[int]:
    """A port of loopback that leads to PostgreSQL's socket, whose directory is closed to the containers' user."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    (socket,) = socket_directory.glob(".s.PGSQL.[0-9]*[0-9]")

    async def relay(client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server, request = await asyncio.open_unix_connection(str(socket))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pump(client, request), _pump(server, answer))

    relaying = asyncio.run_coroutine_threadsafe(asyncio.start_server(relay, "127.0.0.1", 0), loop).result(10)
    yield relaying.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(relaying.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


def _wait_until_ready(url: str, container: Container) -> None:
    deadline = time.monotonic() + READY_BOUND_S * 2
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if _ask(url, "GET", "/health/ready")[0] == 200:
                return
        assert container.process.poll() is None, container.log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{container.name} is not ready: {container.log.read_text()}")


def _ask(url: str, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, str]:
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(8)}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
