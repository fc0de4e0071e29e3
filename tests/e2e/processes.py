"""Real processes of the product: `stockade up`, and five `stockade serve` behind a small reverse proxy."""

import asyncio
import contextlib
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from stockade.local import without_credentials
from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import SERVICES
from tests.conftest import PASSWORDS

STOCKADE = (sys.executable, "-m", "stockade")
ADMIN_EMAIL = "boss@example.com"
ADMIN_PASSWORD = "a password for the tests"
ADMIN_ENVIRONMENT = {"STOCKADE_ADMIN_EMAIL": ADMIN_EMAIL, "STOCKADE_ADMIN_PASSWORD": ADMIN_PASSWORD}


@dataclass
class Running:
    """A process of ours, and what it printed: `out` and `err` apart, `lines` together."""

    process: asyncio.subprocess.Process
    out: list[str] = field(default_factory=list[str])
    err: list[str] = field(default_factory=list[str])
    lines: list[str] = field(default_factory=list[str])
    _readers: tuple[asyncio.Task[None], ...] = ()

    @classmethod
    async def start(cls, *arguments: str, environment: Mapping[str, str], user: int | None = None) -> "Running":
        process = await asyncio.create_subprocess_exec(
            *STOCKADE, *arguments, env=_clean_environment() | dict(environment), user=user, group=user,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # A job in the background of a script is born deaf to SIGINT, and so would be all that it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        running = cls(process)
        assert process.stdout is not None
        assert process.stderr is not None
        running._readers = (
            asyncio.create_task(running._read(process.stdout, running.out)),
            asyncio.create_task(running._read(process.stderr, running.err)),
        )
        return running

    async def _read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        while line := await stream.readline():
            into.append(line.decode(errors="replace").rstrip())
            self.lines.append(into[-1])

    async def wait_for(self, pattern: str, *, limit_s: float = 60) -> re.Match[str]:
        """The first line that matches; fails with the output when the process ends or the time is over."""
        compiled = re.compile(pattern)
        async with asyncio.timeout(limit_s):
            while True:
                for line in self.lines:
                    if match := compiled.search(line):
                        return match
                assert self.process.returncode is None, "\n".join(self.lines)
                await asyncio.sleep(0.05)

    async def end(self, how: signal.Signals = signal.SIGTERM, *, limit_s: float = 40) -> int:
        """Send the signal and wait; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        return await self.wait(limit_s=limit_s)

    async def wait(self, *, limit_s: float = 60) -> int:
        """The exit code of a process that ends by itself; one that does not is killed, and that is a failure."""
        try:
            async with asyncio.timeout(limit_s):
                code = await self.process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise
        return code


async def run(*arguments: str, environment: Mapping[str, str] | None = None, limit_s: float = 60) -> Running:
    """A command that ends by itself, after its end."""
    running = await Running.start(*arguments, environment=environment or {})
    await running.wait(limit_s=limit_s)
    return running


async def succeed(*arguments: str, environment: Mapping[str, str]) -> Running:
    """A command that must succeed."""
    done = await run(*arguments, environment=environment)
    assert done.process.returncode == 0, f"stockade {' '.join(arguments)}: {done.lines}"
    return done


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("STOCKADE_")}


@contextlib.contextmanager
def passable_directory() -> Generator[Path]:
    """A directory that PostgreSQL's account can reach even when we are root."""
    with tempfile.TemporaryDirectory(prefix="stockade-e2e-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o711)
        yield Path(path)


@contextlib.asynccontextmanager
async def everything_up(
    data: Path, *, port: int = 0, environment: Mapping[str, str] = ADMIN_ENVIRONMENT
) -> AsyncGenerator[tuple[str, Running]]:
    """`stockade up` on a data directory: its address and its process."""
    running = await Running.start("up", "--data", str(data), "--port", str(port), environment=environment)
    try:
        ready = await running.wait_for(r"ready in .* (http://\S+)")
        yield ready.group(1), running
    except BaseException:
        print(f"what {data} logged:", *_find_troubles(data / "stockade.log"), sep="\n")
        raise
    finally:
        await running.end()


def _find_troubles(log: Path) -> list[str]:
    """The last errors in the services' log: what no refusal explains."""
    if not log.exists():
        return []
    return [line for line in log.read_text().splitlines() if '"log.level":"error"' in line][-10:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Fleet:
    """Five processes, each serving one service, and the proxy in front of them."""

    url: str
    """Of the proxy."""
    urls: Mapping[str, str]
    owner: Mapping[str, str]
    """The environment of a command that enters the database as its owner."""
    secrets: Path
    processes: dict[str, Running]
    _environments: Mapping[str, Mapping[str, str]]

    async def start(self, name: str) -> None:
        """Start a service, or start it again, and wait until it is ready."""
        self.processes[name] = await Running.start("serve", name, environment=self._environments[name])
        await wait_until_ready(self.urls[name])


@contextlib.asynccontextmanager
async def five_processes(
    admin_url: str, directory: Path, *, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Fleet]:
    """Bootstrap, migrate, make the administrator, and serve each service alone; `environment` is added to each one's."""
    database = f"five_{secrets.token_hex(4)}"
    address = without_credentials(admin_url, database)
    write_secrets(directory)
    roles, services = directory / "roles", directory / "services"
    bootstrap = {"STOCKADE_DATABASE_URL": urlsplit(admin_url)._replace(path=f"/{database}").geturl()}
    await succeed("bootstrap", "--passwords", str(roles), environment=bootstrap)
    owner = {"STOCKADE_DATABASE_URL": address, "STOCKADE_DATABASE_USER": OWNER_ROLE}
    owner["STOCKADE_DATABASE_PASSWORD_FILE"] = str(roles / OWNER_ROLE)
    await succeed("migrate", environment=owner)
    account = owner | {"STOCKADE_USER_PASSWORD": ADMIN_PASSWORD}
    await succeed("user", "create", ADMIN_EMAIL, "--name", "Boss", "--role", "admin", environment=account)
    ports = {service.name: free_port() for service in SERVICES}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    everywhere = {
        "STOCKADE_DATABASE_URL": address,
        "STOCKADE_JWT_SECRET_FILE": str(directory / "jwt"),
        "STOCKADE_SERVICE_SECRETS_DIRECTORY": str(services),
        **{f"STOCKADE_{name.upper().replace('-', '_')}_URL": url for name, url in urls.items()},
        **(environment or {}),
    }
    environments = {
        service.name: everywhere
        | {
            "STOCKADE_PORT": str(ports[service.name]),
            "STOCKADE_DATABASE_USER": role_of(service.schema),
            "STOCKADE_DATABASE_PASSWORD_FILE": str(roles / role_of(service.schema)),
            "STOCKADE_SERVICE_SECRET_FILE": str(services / service.name),
        }
        for service in SERVICES
    }
    async with _proxy(urls) as url:
        fleet = Fleet(url, urls, owner, directory, {}, environments)
        try:
            await asyncio.gather(*(fleet.start(service.name) for service in SERVICES))
            yield fleet
        finally:
            await asyncio.gather(*(running.end() for running in fleet.processes.values()))


def write_secrets(directory: Path) -> None:
    """A password for each role in `roles`, a secret for each service in `services`, and the signing secret in `jwt`."""
    # Roles are the whole server's, and other tests of this worker enter it with these passwords.
    contents = {
        "roles": PASSWORDS,
        "services": {service.name: secrets.token_hex(20) for service in SERVICES},
    }
    for folder, files in contents.items():
        (directory / folder).mkdir()
        for name, secret in files.items():
            (directory / folder / name).write_text(secret)
    (directory / "jwt").write_text(secrets.token_hex(32))


async def wait_until_ready(url: str, *, limit_s: float = 60) -> None:
    await _wait_until_200(f"{url}/health/ready", limit_s)


async def wait_until_alive(url: str, *, limit_s: float = 60) -> None:
    await _wait_until_200(f"{url}/health", limit_s)


async def _wait_until_200(address: str, limit_s: float) -> None:
    async with asyncio.timeout(limit_s), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(address) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _proxy(urls: Mapping[str, str]) -> AsyncGenerator[str]:
    """What a gateway does: the first name after /api/v1 chooses the service, nothing is rewritten; 502 when it is away."""
    target_of = {name: urls[service.name] for service in SERVICES for name in service.owns}

    async def forward(request: web.Request) -> web.StreamResponse:
        target = target_of.get(request.path.removeprefix("/api/v1/").partition("/")[0])
        if target is None:
            raise web.HTTPNotFound
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        try:
            async with session.request(
                request.method, target + request.raw_path, data=await request.read(), headers=headers
            ) as answer:
                kept = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in ("content-length", "connection")
                }
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except aiohttp.ClientError as error:
            raise web.HTTPBadGateway from error

    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/api/v1/{rest:.*}", forward)
    runner = web.AppRunner(application)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
