"""The command line: what it says where, its exit codes, and that no mistake of an operator ends in a stack trace."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from stockade import __version__
from stockade.cli import main
from stockade.local import without_credentials
from stockade.postgres import OWNER_ROLE, role_of
from stockade.targets import NAMES
from tests.conftest import ServerThread
from tests.e2e.crowd import sign_in
from tests.e2e.processes import (
    ADMIN_EMAIL,
    ADMIN_ENVIRONMENT,
    ADMIN_PASSWORD,
    Running,
    everything_up,
    free_port,
    passable_directory,
    run,
    succeed,
    wait_until_alive,
    write_secrets,
)

NOBODY_LISTENS = "postgresql://127.0.0.1:1/stockade"
AWAY = {"STOCKADE_DATABASE_URL": NOBODY_LISTENS}
AT_ONCE = 3


@dataclass
class Installation:
    """A database of the test's server that only its owner's role and its services enter."""

    admin_url: str
    address: str
    directory: Path

    @property
    def owner(self) -> dict[str, str]:
        return self.as_role(OWNER_ROLE)

    def as_role(self, role: str) -> dict[str, str]:
        return {
            "STOCKADE_DATABASE_URL": self.address,
            "STOCKADE_DATABASE_USER": role,
            "STOCKADE_DATABASE_PASSWORD_FILE": str(self.directory / "roles" / role),
        }

    def serving(self, port: int) -> dict[str, str]:
        """The environment of the user-service."""
        return self.as_role(role_of("user")) | {
            "STOCKADE_PORT": str(port),
            "STOCKADE_JWT_SECRET_FILE": str(self.directory / "jwt"),
            "STOCKADE_SERVICE_SECRET_FILE": str(self.directory / "services" / "user-service"),
            "STOCKADE_SERVICE_SECRETS_DIRECTORY": str(self.directory / "services"),
        }

    async def bootstrap(self) -> Running:
        directory = str(self.directory / "roles")
        return await succeed(
            "bootstrap", "--passwords", directory, environment={"STOCKADE_DATABASE_URL": self.admin_url}
        )

    @contextlib.asynccontextmanager
    async def tampering(self) -> AsyncGenerator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.admin_url)
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture
async def installation(bare_postgres: ServerThread) -> AsyncGenerator[Installation]:
    """Not bootstrapped yet."""
    name = f"cli_{secrets.token_hex(4)}"
    url = urlsplit(bare_postgres.server.url)._replace(path=f"/{name}").geturl()
    with passable_directory() as directory:
        write_secrets(directory)
        yield Installation(url, without_credentials(bare_postgres.server.url, name), directory)
    admin = await asyncpg.connect(bare_postgres.server.url)
    await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture(scope="module")
async def up() -> AsyncGenerator[tuple[str, Path]]:
    """The address and the data directory of a running `stockade up`."""
    with passable_directory() as directory:
        async with everything_up(directory / "data") as (url, _):
            yield url, directory / "data"


class Tell(Protocol):
    def __call__(self, code: int, *arguments: str, environment: Mapping[str, str] = ...) -> str: ...


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generator[Tell]:
    """A command in this process, for long tables: it must end with this code and say one line, which is returned."""
    handlers = {how: signal.getsignal(how) for how in (signal.SIGINT, signal.SIGTERM)}

    def tell(code: int, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> str:
        for name in filter(lambda name: name.startswith("STOCKADE_"), tuple(os.environ)):
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["stockade", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (code, "", 1), err
        assert err.startswith("stockade: ")
        return err

    yield tell
    for how, handler in handlers.items():
        signal.signal(how, handler)


def check_error(done: Running, code: int, *said: str) -> None:
    """One line on standard error that has these words, nothing on standard output but the place, and the exit code."""
    assert (done.process.returncode, len(done.err)) == (code, 1), done.lines
    assert done.err[0].startswith("stockade: ")
    assert all(words in done.err[0] for words in said), done.err
    assert not [line for line in done.out if not line.startswith("stockade: data")]


# Help and usage.

COMMANDS = ["", "up", "serve", "migrate", "bootstrap", "integrity", "user", "user create", "version"]


async def test_every_command_explains_itself():
    for command, done in zip(
        COMMANDS, await run_all([(*command.split(), "--help") for command in COMMANDS]), strict=True
    ):
        assert (done.process.returncode, done.err) == (0, []), command
        assert done.out[0].startswith(f"Usage: stockade {command}".rstrip()), done.out[0]
        assert len(done.out[2]) > 5, f"{command} has no description"


async def test_it_tells_its_version():
    for done in await run_all([("version",), ("--version",)]):
        assert (done.process.returncode, done.out, done.err) == (0, [__version__], [])


USAGE = [
    ("nonsense", 'Unknown command "nonsense"'),
    ("up --nonsense", "--nonsense"),
    ("up --port 65536", "--port must be between 0 and 65535"),
    ("up --port -1", "--port"),
    ("up --port http", "--port"),
    ("up --data", "--data requires an argument"),
    ("up somewhere", "somewhere"),
    ("up --host nowhere.invalid", "nowhere.invalid"),
    ("serve", "requires an argument"),
    ("serve nonsense", f"choose one of {', '.join(NAMES)}"),
    ("serve user-service order-service", "order-service"),
    ("migrate --nonsense", "--nonsense"),
    ("bootstrap", "--passwords requires an argument"),
    ("integrity --data nowhere", "holds no Stockade data"),
    ("user nonsense", "nonsense"),
    ("user create", "requires an argument"),
    ("user create ann@example.com --role admin", "--name"),
    ("user create ann@example.com --name Ann", "--role"),
    ("user create ann@example.com --name Ann --role boss", "choose of admin, manager"),
    ("user create ann@ --name Ann --role admin", "'ann@' is not an e-mail address"),
    ("user create ann@example.com --name Ann --role admin --data nowhere", "holds no Stockade data"),
    ("version 2", "2"),
]


@pytest.mark.parametrize(("command", "said"), USAGE)
def test_wrong_usage_is_one_line_and_exit_code_2(command: str, said: str, tell: Tell):
    assert said in tell(2, *command.split())


async def test_wrong_usage_of_the_installed_command_is_one_line_and_exit_code_2():
    done = await run("up", "--port", "http")
    check_error(done, 2, "--port", "stockade --help shows what there is")


# Settings.

STRONG = "correct-horse-battery-staple-0123456789"
LEAST = {
    "STOCKADE_DATABASE_URL": NOBODY_LISTENS,
    "STOCKADE_SERVICE_SECRET": STRONG,
    "STOCKADE_JWT_SECRET": STRONG,
    "STOCKADE_PORT": "0",
}
WRONG_SETTINGS = [
    ("STOCKADE_ENVIRONMENT", "staging"),
    ("STOCKADE_DATABASE_URL", ""),
    ("STOCKADE_DATABASE_URL", "mysql://db/stockade"),
    ("STOCKADE_DATABASE_URL", "postgresql://db:port/stockade"),
    ("STOCKADE_DATABASE_URL_FILE", "nowhere"),
    ("STOCKADE_DATABASE_USER_FILE", "nowhere"),
    ("STOCKADE_DATABASE_PASSWORD", "postgres-for-all"),
    ("STOCKADE_DATABASE_PASSWORD_FILE", "nowhere"),
    ("STOCKADE_DATABASE_POOL_SIZE", "0"),
    ("STOCKADE_DATABASE_POOL_SIZE", "2.5"),
    ("STOCKADE_HOST", "nowhere.invalid"),
    ("STOCKADE_PORT", "65536"),
    ("STOCKADE_JWT_SECRET", ""),
    ("STOCKADE_JWT_SECRET", "too-short-a-line"),
    ("STOCKADE_JWT_SECRET", "change-me-change-me-change-me-change-me"),
    ("STOCKADE_JWT_SECRET_FILE", "nowhere"),
    ("STOCKADE_SERVICE_SECRET", ""),
    ("STOCKADE_SERVICE_SECRET", "short"),
    ("STOCKADE_SERVICE_SECRET_FILE", "nowhere"),
    ("STOCKADE_SERVICE_SECRETS_DIRECTORY", "nowhere"),
    ("STOCKADE_INVENTORY_SERVICE_URL", "inventory:80"),
    ("STOCKADE_ORDER_SERVICE_URL", "http://orders:port"),
    ("STOCKADE_ACCESS_TOKEN_LIFETIME_S", "29"),
    ("STOCKADE_REFRESH_TOKEN_LIFETIME_S", "for ever"),
    ("STOCKADE_BODY_LIMIT_BYTES", "1e12"),
    ("STOCKADE_REQUEST_DEADLINE_S", "0"),
    ("STOCKADE_DRAIN_DELAY_S", "-1"),
    ("STOCKADE_DRAIN_LIMIT_S", "nan"),
]


@pytest.mark.parametrize(("variable", "value"), WRONG_SETTINGS)
def test_a_wrong_setting_is_named_and_stops_the_start(variable: str, value: str, tell: Tell):
    said = tell(2, "serve", "user-service", environment=LEAST | {variable: value})
    assert (value if variable == "STOCKADE_HOST" else variable) in said


async def test_a_wrong_setting_of_a_real_process_is_one_line_and_exit_code_2():
    done = await run("serve", "user-service", environment=LEAST | {"STOCKADE_JWT_SECRET": ""})
    check_error(done, 2, "STOCKADE_JWT_SECRET (or STOCKADE_JWT_SECRET_FILE) is not set")


async def test_a_weak_secret_is_good_enough_in_development():
    port = free_port()
    weak = {"STOCKADE_SERVICE_SECRET": "secret", "STOCKADE_ENVIRONMENT": "development", "STOCKADE_PORT": str(port)}
    running = await Running.start("serve", "user-service", environment=LEAST | weak)
    await wait_until_alive(f"http://127.0.0.1:{port}")
    assert await running.end() == 0
    assert not running.err


def test_a_port_in_use_is_exit_code_1(tell: Tell, tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = f"Port {port} on 127.0.0.1 cannot be used (Address already in use)"
        assert said in tell(1, "serve", "user-service", environment=LEAST | {"STOCKADE_PORT": port})
        assert said in tell(1, "up", "--port", port, "--data", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


# What a service says of its database.


async def test_a_service_says_why_it_is_not_ready_until_it_is(installation: Installation):
    port = free_port()
    running = await Running.start("serve", "user-service", environment=installation.serving(port))
    url = f"http://127.0.0.1:{port}"
    try:
        await wait_until_alive(url)
        assert await readiness(url) == (503, "the database is not reachable")
        await installation.bootstrap()
        assert await readiness(url) == (503, "2 migrations are missing: run `stockade migrate`")
        await succeed("migrate", "user-service", environment=installation.owner)
        assert await readiness(url) == (200, None)
        async with installation.tampering() as connection:
            await connection.execute(
                'INSERT INTO "user".applied_migrations (series, number, name, checksum) VALUES ($1, $2, $3, $4)',
                "service", 99, "0099_future", "x",
            )  # fmt: skip
        status, reason = await readiness(url)
        assert status == 503
        assert "newer than this program: it has service migration 0099" in reason
        check_error(await run("migrate", environment=installation.owner), 2, "newer than this program")
    finally:
        assert await running.end() == 0


async def test_a_service_with_a_wrong_password_is_alive_and_not_ready(installation: Installation):
    await installation.bootstrap()
    port = free_port()
    wrong = {"STOCKADE_DATABASE_PASSWORD_FILE": str(installation.directory / "roles" / role_of("order"))}
    running = await Running.start("serve", "user-service", environment=installation.serving(port) | wrong)
    try:
        await wait_until_alive(f"http://127.0.0.1:{port}")
        assert (await readiness(f"http://127.0.0.1:{port}"))[0] == 503
        assert [line for line in running.out if "database refuses the credentials" in line]
    finally:
        assert await running.end() == 0


WITHOUT_DATABASE = [
    ("bootstrap --passwords nowhere", {}, 2, "STOCKADE_DATABASE_URL is not set"),
    ("bootstrap --passwords nowhere", AWAY, 2, f"nowhere/{OWNER_ROLE}, which is to hold a password, cannot be read"),
    ("migrate", {}, 2, "STOCKADE_DATABASE_URL is not set"),
    ("migrate nonsense", AWAY, 2, "There is no service 'nonsense'"),
    ("migrate", AWAY, 1, "cannot be reached (Connection refused)"),
    ("user create ann@example.com --name Ann --role viewer", AWAY, 1, "cannot be reached (Connection refused)"),
]


@pytest.mark.parametrize(("command", "environment", "code", "said"), WITHOUT_DATABASE)
def test_a_database_that_is_away_is_one_line(
    command: str, environment: dict[str, str], code: int, said: str, tell: Tell
):
    assert said in tell(code, *command.split(), environment=environment)


async def test_what_is_wrong_with_the_database_is_one_line(installation: Installation):
    owner, user = installation.owner, installation.as_role(role_of("user"))
    account = ("user", "create", "ann@example.com", "--name", "Ann", "--role", "viewer")
    wrong = owner | {"STOCKADE_DATABASE_PASSWORD_FILE": user["STOCKADE_DATABASE_PASSWORD_FILE"]}
    check_error(await run("migrate", environment=owner), 1, "run `stockade bootstrap` first")
    await installation.bootstrap()
    table = [
        (("bootstrap", "--passwords", str(installation.directory / "roles")), user, "CREATEROLE"),
        (("migrate",), wrong, "refuses the user or the password"),
        (("migrate",), user, f"enter the database as {OWNER_ROLE}"),
        (account, owner, "run `stockade migrate` first"),
    ]
    done = await run_all([arguments for arguments, *_ in table], [environment for _, environment, _ in table])
    for (_, _, said), one in zip(table, done, strict=True):
        check_error(one, 1, said)


# The way of an installation: bootstrap, migrate, accounts, integrity.


async def test_bootstrap_and_migrate_may_be_repeated(installation: Installation):
    first, second = await installation.bootstrap(), await installation.bootstrap()
    assert first.out == second.out == ["stockade: roles, database and schemas are there; `stockade migrate` comes next"]
    some = await succeed("migrate", "user-service", "order-service", environment=installation.owner)
    assert some.out == [
        "stockade: user-service: 0001_kit, 0001_accounts",
        "stockade: order-service: 0001_kit, 0001_orders",
    ]
    applied = parse(await succeed("migrate", "--json", environment=installation.owner))
    assert list(applied) == list(NAMES)
    assert applied["user-service"] == applied["order-service"] == []
    assert applied["inventory-service"][:2] == ["0001_kit", "0001_ledger"]
    again = await succeed("migrate", environment=installation.owner)
    assert again.out == [f"stockade: {name}: nothing to do" for name in NAMES]
    assert not again.err


async def test_two_migrations_at_once_apply_everything_once(installation: Installation):
    await installation.bootstrap()
    done = await run_all([("migrate", "--json")] * 2, [installation.owner] * 2)
    one, other = map(parse, done)
    assert [name for name in NAMES if bool(one[name]) == bool(other[name])] == []


async def test_integrity_exits_with_1_when_the_books_are_wrong(installation: Installation):
    await installation.bootstrap()
    check_progress(await run("integrity", environment=installation.owner), 1, "run `stockade migrate` first")
    await succeed("migrate", environment=installation.owner)
    report = parse(await succeed("integrity", "--json", environment=installation.owner))
    assert report["violations"] == 0
    assert {finding["id"] for finding in report["invariants"]} >= {"I1", "I8", "I9", "I16"}
    async with installation.tampering() as connection:
        await connection.execute(
            """
            SET search_path TO inventory;
            INSERT INTO items VALUES (gen_random_uuid(), 'A-1', 'Kettle', 'each', 'none', true, 1);
            INSERT INTO warehouses (id, code, name) VALUES (gen_random_uuid(), 'MAIN', 'Main');
            INSERT INTO stock_levels (item_id, warehouse_id, on_hand, sellable)
            SELECT i.id, w.id, 5, 5 FROM items i, warehouses w;
            """
        )
    said, told = await run_all([("integrity",), ("integrity", "--json")], [installation.owner] * 2)
    assert said.process.returncode == told.process.returncode == 1
    assert [line for line in said.out if line.lstrip().startswith("I2") and "BROKEN 1 times" in line]
    assert [line for line in said.out if "says 5.000000 (5.000000 sellable), entries say 0 (0)" in line]
    broken = {finding["id"] for finding in json.loads("\n".join(told.out))["invariants"] if finding["violations"]}
    assert broken == {"I2", "I11"}


async def test_an_account_is_made_beside_the_running_product(up: tuple[str, Path]):
    url, data = up
    place = ("--data", str(data))
    made = parse(
        await succeed(
            "user", "create", "Ann@Example.com", "--name", "Ann", "--role", "sales", "--role", "viewer", "--json", *place,
            environment={},
        )
    )  # fmt: skip
    assert (made["email"], made["roles"]) == ("ann@example.com", ["sales", "viewer"])
    assert await sign_in(url, "ann@example.com", made["password"])
    given = {"STOCKADE_USER_PASSWORD": "a password for Bob"}
    bob = ("user", "create", "bob@example.com", "--name", "Bob", "--role", "viewer", *place)
    assert (await succeed(*bob, environment=given)).out == ["stockade: bob@example.com is there, with viewer"]
    assert await sign_in(url, "bob@example.com", given["STOCKADE_USER_PASSWORD"])
    taken, short, missing = await run_all(
        [bob, bob, bob], [given, {"STOCKADE_USER_PASSWORD": "short"}, {"STOCKADE_USER_PASSWORD_FILE": "nowhere"}]
    )
    check_error(taken, 1, "bob@example.com exists already")
    check_error(short, 2, "STOCKADE_USER_PASSWORD is shorter than 12")
    check_error(missing, 2, "STOCKADE_USER_PASSWORD_FILE names a file that cannot be read")


async def test_a_second_start_on_the_same_data_is_refused(up: tuple[str, Path]):
    _, data = up
    check_error(
        await run("up", "--data", str(data), "--port", "0"), 1, f"{data} is in use by another stockade (process "
    )


async def test_integrity_works_beside_the_running_product(up: tuple[str, Path]):
    _, data = up
    report = parse(await succeed("integrity", "--json", "--data", str(data), environment={}))
    assert report["violations"] == 0


# `stockade up`: places where it cannot live, and how it ends.


async def test_a_place_where_it_cannot_live_is_one_line():
    with passable_directory() as directory:
        (directory / "file").write_text("")
        (directory / "home").mkdir()
        (directory / "home" / "letter").write_text("Dear Ann")
        (directory / "strange" / "postgres").mkdir(parents=True)
        (directory / "strange" / "postgres" / "letter").write_text("Dear Bob")
        places = [
            ("file", 1, "cannot be used"),
            ("file/below", 1, "cannot be used"),
            ("home", 2, "is not empty (letter)"),
        ]
        places.append(("strange", 1, "postgres"))
        commands = [("up", "--port", "0", "--data", str(directory / place)) for place, *_ in places]
        for (_, code, said), done in zip(places, await run_all(commands), strict=True):
            check_error(done, code, said)
        assert [entry.name for entry in (directory / "home").iterdir()] == ["letter"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_during_the_start_ends_it_and_the_next_start_works(how: signal.Signals):
    with passable_directory() as directory:
        data = directory / "data"
        running = await Running.start("up", "--data", str(data), "--port", "0", environment={})
        await running.wait_for("Creating a PostgreSQL")
        assert await running.end(how) == 1
        assert running.err == ["stockade: interrupted"]
        assert not (data / "postgres" / "postmaster.pid").exists()
        async with everything_up(data) as (url, _):
            await sign_in(url, ADMIN_EMAIL, ADMIN_PASSWORD)
        # Nothing runs now: the command starts the server for itself and leaves the directory to the next one.
        assert parse(await succeed("integrity", "--json", "--data", str(data), environment={}))["violations"] == 0
        assert not (data / "postgres" / "postmaster.pid").exists()


async def test_it_uses_the_database_that_it_is_given(installation: Installation):
    environment = ADMIN_ENVIRONMENT | {"STOCKADE_DATABASE_URL": installation.admin_url}
    data = installation.directory / "data"
    for _ in range(2):
        async with everything_up(data, environment=environment) as (url, running):
            await sign_in(url, ADMIN_EMAIL, ADMIN_PASSWORD)
            assert "stockade: database: the one of STOCKADE_DATABASE_URL" in running.out
        assert (running.out[-1], running.err, running.process.returncode) == ("stockade: stopped", [], 0)
    assert not (data / "postgres").exists()
    other = urlsplit(installation.admin_url)
    table = [
        (NOBODY_LISTENS, "cannot be reached (Connection refused)"),
        (other._replace(netloc=f"x{other.netloc}").geturl(), "refuses the user or the password"),
        ("nonsense", "The database URL cannot be read"),
    ]
    commands = [("up", "--port", "0", "--data", str(installation.directory / f"data{n}")) for n in range(len(table))]
    done = await run_all(commands, [{"STOCKADE_DATABASE_URL": url} for url, _ in table])
    for (_, said), one in zip(table, done, strict=True):
        assert (one.process.returncode, one.err) == (1, [one.err[0]])
        assert said in one.err[0]


async def test_a_first_administrator_who_could_not_sign_in_is_refused(installation: Installation):
    table = [
        ({"STOCKADE_ADMIN_PASSWORD": "short"}, "STOCKADE_ADMIN_PASSWORD must have at least 12 characters"),
        ({"STOCKADE_ADMIN_PASSWORD": "password1234"}, "STOCKADE_ADMIN_PASSWORD is a well-known example"),
        ({"STOCKADE_ADMIN_PASSWORD_FILE": "nowhere"}, "STOCKADE_ADMIN_PASSWORD_FILE names a file that cannot be read"),
        (
            {"STOCKADE_ADMIN_EMAIL": "boss", "STOCKADE_ADMIN_PASSWORD": ADMIN_PASSWORD},
            "'boss' is not an e-mail address",
        ),
    ]
    for environment, said in table:
        place = ("--data", str(installation.directory / "data"), "--port", "0")
        done = await run("up", *place, environment=environment | {"STOCKADE_DATABASE_URL": installation.admin_url})
        assert (done.process.returncode, len(done.err)) == (2, 1), done.lines
        assert said in done.err[0]


async def run_all(commands: Any, environments: list[dict[str, str]] | None = None) -> list[Running]:
    """Commands that end by themselves, a few at once, in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(arguments: Any, environment: Mapping[str, str]) -> Running:
        async with gate:
            return await run(*arguments, environment=environment)

    environments = environments or [{} for _ in commands]
    return await asyncio.gather(*(one(*pair) for pair in zip(commands, environments, strict=True)))


def parse(done: Running) -> Any:
    """The JSON document on standard output."""
    return json.loads("\n".join(done.out))


def check_progress(done: Running, code: int, said: str) -> None:
    """As `check_error`, for a command that tells on standard error how it gets on."""
    assert (done.process.returncode, done.out) == (code, []), done.lines
    assert said in done.err[-1]
    assert all(line.startswith("stockade: ") for line in done.err)


async def readiness(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/health/ready") as answer:
        return answer.status, (await answer.json())["reason"]
