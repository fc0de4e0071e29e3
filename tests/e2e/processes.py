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
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from stockade.local import without_credentials
from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import SERVICES

STOCKADE = (sys.executable, "-m", "stockade")
ADMIN_EMAIL = "boss@example.com"
ADMIN_PASSWORD = "a password for the tests"


@dataclass
class Running:
    """A process of ours, and what it printed."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list[str])
    _reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, *arguments: str, environment: Mapping[str, str]) -> "Running":
        process = await asyncio.create_subprocess_exec(
            *STOCKADE, *arguments, env=_clean_environment() | dict(environment),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        running = cls(process)
        running._reader = asyncio.create_task(running._read())
        return running

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode(errors="replace").rstrip())

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
        async with asyncio.timeout(limit_s):
            code = await self.process.wait()
            if self._reader is not None:
                await self._reader
        return code


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("STOCKADE_")}


@contextlib.contextmanager
def passable_directory():
    """A directory that PostgreSQL's account can reach even when we are root."""
    with tempfile.TemporaryDirectory(prefix="stockade-e2e-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o711)
        yield Path(path)


ADMIN_ENVIRONMENT = {"STOCKADE_ADMIN_EMAIL": ADMIN_EMAIL, "STOCKADE_ADMIN_PASSWORD": ADMIN_PASSWORD}


@contextlib.asynccontextmanager
async def everything_up(data: Path) -> AsyncGenerator[tuple[str, Running]]:
    """`stockade up` on a data directory: its address and its process."""
    running = await Running.start("up", "--data", str(data), "--port", "0", environment=ADMIN_ENVIRONMENT)
    try:
        ready = await running.wait_for(r"ready in .* (http://\S+)")
        yield ready.group(1), running
    finally:
        await running.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def five_processes(admin_url: str, directory: Path) -> AsyncGenerator[tuple[str, dict[str, Running]]]:
    """Bootstrap, migrate, make the administrator, serve each service alone: the proxy's address and the processes."""
    database = f"five_{secrets.token_hex(4)}"
    address = without_credentials(admin_url, database)
    environment, roles = _write_secrets(directory, address)
    await _run(
        "bootstrap", "--passwords", str(roles), environment={"STOCKADE_DATABASE_URL": _database_of(admin_url, database)}
    )
    owner = {"STOCKADE_DATABASE_URL": address, "STOCKADE_DATABASE_USER": OWNER_ROLE}
    owner["STOCKADE_DATABASE_PASSWORD_FILE"] = str(roles / OWNER_ROLE)
    await _run("migrate", environment=owner)
    account = owner | {"STOCKADE_USER_PASSWORD": ADMIN_PASSWORD}
    await _run("user", "create", ADMIN_EMAIL, "--name", "Boss", "--role", "admin", environment=account)
    async with contextlib.AsyncExitStack() as stack:
        processes: dict[str, Running] = {}
        for service in SERVICES:
            own = {
                "STOCKADE_PORT": environment["ports"][service.name],
                "STOCKADE_DATABASE_USER": role_of(service.schema),
                "STOCKADE_DATABASE_PASSWORD_FILE": str(roles / role_of(service.schema)),
                "STOCKADE_SERVICE_SECRET_FILE": str(directory / "services" / service.name),
            }
            processes[service.name] = await Running.start("serve", service.name, environment=environment["all"] | own)
            stack.push_async_callback(processes[service.name].end)
        urls = {service.name: f"http://127.0.0.1:{environment['ports'][service.name]}" for service in SERVICES}
        await asyncio.gather(*(wait_until_ready(url) for url in urls.values()))
        yield await stack.enter_async_context(_proxy(urls)), processes


def _write_secrets(directory: Path, address: str):
    roles, services = directory / "roles", directory / "services"
    for folder, names in (
        (roles, [OWNER_ROLE, *(role_of(s.schema) for s in SERVICES)]),
        (services, [s.name for s in SERVICES]),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(secrets.token_hex(20))
    (directory / "jwt").write_text(secrets.token_hex(32))
    ports = {service.name: str(free_port()) for service in SERVICES}
    everywhere = {
        "STOCKADE_DATABASE_URL": address,
        "STOCKADE_JWT_SECRET_FILE": str(directory / "jwt"),
        "STOCKADE_SERVICE_SECRETS_DIRECTORY": str(services),
    }
    for name, port in ports.items():
        everywhere[f"STOCKADE_{name.upper().replace('-', '_')}_URL"] = f"http://127.0.0.1:{port}"
    return {"all": everywhere, "ports": ports}, roles


def _database_of(admin_url: str, database: str) -> str:
    return admin_url.replace("/postgres?", f"/{database}?")


async def _run(*arguments: str, environment: Mapping[str, str]) -> None:
    running = await Running.start(*arguments, environment=environment)
    async with asyncio.timeout(60):
        code = await running.process.wait()
        assert running._reader is not None
        await running._reader
    assert code == 0, f"stockade {' '.join(arguments)}: {running.lines}"


async def wait_until_ready(url: str, *, limit_s: float = 60) -> None:
    async with asyncio.timeout(limit_s), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/health/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def _proxy(urls: Mapping[str, str]) -> AsyncGenerator[str]:
    """What a gateway does: the first name after /api/v1 chooses the service, nothing is rewritten."""
    target_of = {name: urls[service.name] for service in SERVICES for name in service.owns}

    async def forward(request: web.Request) -> web.StreamResponse:
        target = target_of.get(request.path.removeprefix("/api/v1/").partition("/")[0])
        if target is None:
            raise web.HTTPNotFound
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length")
        }
        async with session.request(
            request.method, target + request.raw_path, data=await request.read(), headers=headers
        ) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in ("content-length", "connection")
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

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
