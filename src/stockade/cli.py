"""The command line: `stockade up`, `serve`, `migrate`, `bootstrap`, `integrity`, `user create`, `version`.

Exit codes: 0 done, 1 it failed (or `integrity` found a violation), 2 wrong usage or configuration. An error is one line
on standard error with the cause and the next step.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import uvloop
from cyclopts import App, CycloptsError, Parameter

from stockade import __version__

T = TypeVar("T")

app = App(
    name="stockade",
    version=__version__,
    help="Inventory for a company that runs it itself. Start here: `stockade up` brings everything up on this machine.",
)
user = App(name="user", help="Accounts.")
app.command(user)

Data = Annotated[
    Path | None,
    Parameter(
        name="--data", help="The directory of `stockade up`. Default: below your home; for root /var/lib/stockade."
    ),
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for a script.")]


@app.command
def up(
    *,
    data: Data = None,
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.")] = 8080,
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    demo: Annotated[bool, Parameter(negative="", help="Load a small company to look around in, once.")] = False,
) -> None:
    """Bring the whole product up on this machine, in the foreground, until Ctrl-C or SIGTERM.

    Uses the PostgreSQL that STOCKADE_DATABASE_URL names (its user must be allowed to create roles), else one of this
    machine's or its own. The first start makes the first administrator from STOCKADE_ADMIN_EMAIL and
    STOCKADE_ADMIN_PASSWORD (or STOCKADE_ADMIN_PASSWORD_FILE), else with a password that it shows once.
    """
    from stockade.local import Place, run_local

    _check_port(port)
    _run(run_local(Place(data=_directory(data), host=host, port=port, demo=demo), _say))


@app.command
def serve(service: Annotated[str, Parameter(help="Such as inventory-service.")]) -> None:
    """Serve one service in the foreground. Everything else comes from the environment: docs/operations.md lists it."""
    from stockade.targets import serve_one

    _run(serve_one(service))


@app.command
def migrate(
    *services: Annotated[str, Parameter(help="Only these services. Default: all.")], json: Json = False
) -> None:
    """Apply the migrations that are missing, as the owner role that the database settings of the environment name."""
    from stockade.administration import migrate_database

    applied = _run(migrate_database(services))
    if json:
        _print_json(applied)
        return
    for name, done in applied.items():
        _say(f"{name}: {', '.join(done) or 'nothing to do'}")


@app.command
def bootstrap(
    *, passwords: Annotated[Path, Parameter(help="A directory with one file a role, holding its password.")]
) -> None:
    """Make roles, database and schemas on the server of STOCKADE_DATABASE_URL. Safe to repeat; sets the passwords again."""
    from stockade.administration import prepare_database

    _run(prepare_database(passwords))
    _say("roles, database and schemas are there; `stockade migrate` comes next")


@app.command
def integrity(*, data: Data = None, json: Json = False) -> None:
    """Prove every invariant of the books now. Exit code 1 when one is broken."""
    from stockade.administration import check_integrity

    findings = _run(check_integrity(_directory(data), _whisper))
    violations = sum(finding["violations"] for finding in findings)
    if json:
        _print_json({"violations": violations, "invariants": findings})
    else:
        for finding in findings:
            state = "holds" if not finding["violations"] else f"BROKEN {finding['violations']} times"
            print(f"{finding['id']:>4}  {state:<10}  {finding['promise']}  ({finding['took_ms']} ms)")
            for example in finding["examples"]:
                print(f"      {example}")
    raise SystemExit(1 if violations else 0)


@user.command(name="create")
def create_user(
    email: Annotated[str, Parameter(help="The address to sign in with.")],
    *,
    name: Annotated[str, Parameter(help="The person's name.")],
    role: Annotated[list[str], Parameter(help="A role; may be given several times. GET /api/v1/roles explains them.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """Make an account, from the machine that the database trusts.

    The password is STOCKADE_USER_PASSWORD (or the file that STOCKADE_USER_PASSWORD_FILE names); without it one is made
    and shown once.
    """
    from stockade.administration import create_user as create

    account, password = _run(create(_directory(data), _whisper, email=email, name=name, roles=role))
    if json:
        _print_json({"id": str(account.id), "email": account.email, "roles": account.roles, "password": password})
        return
    _say(f"{account.email} is there, with {', '.join(account.roles)}")
    if password:
        _say(f"password: {password}   (shown only now; change it with POST /api/v1/auth/password)")


@app.command
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """The entry point of the `stockade` script."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(2, f"{' '.join(str(error).split())} (stockade --help shows what there is)")


def _run(work: Coroutine[Any, Any, T]) -> T:
    from stockade.kit.errors import ConfigurationError, Refusal
    from stockade.postgres import PostgresError
    from stockade.serving import PortError

    # A shell makes its background jobs ignore SIGINT; here it must reach the runner, which cancels the work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except ConfigurationError as error:
        _fail(2, str(error))
    except (PostgresError, PortError) as error:
        _fail(1, str(error))
    except Refusal as refusal:
        _fail(1, refusal.detail)
    except KeyboardInterrupt:
        _fail(1, "interrupted")
    raise AssertionError("_fail does not return")


def _interrupt(*_: object) -> None:
    """SIGTERM before a server takes it: what was started is stopped in good order, as after Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


def _directory(data: Path | None) -> Path:
    from stockade.local import default_data_directory

    return (data or default_data_directory()).expanduser().absolute()


def _check_port(port: int) -> None:
    if not 0 <= port <= 65_535:
        _fail(2, f"--port must be between 0 and 65535, not {port}")


def _print_json(document: Any) -> None:
    import json

    print(json.dumps(document, indent=2))


def _say(line: str) -> None:
    print(f"stockade: {line}", flush=True)


def _whisper(line: str) -> None:
    """Progress of a command whose output is its result."""
    print(f"stockade: {line}", file=sys.stderr, flush=True)


def _fail(code: int, line: str) -> None:
    print(f"stockade: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(code)
