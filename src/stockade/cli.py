"""The command line: `stockade up`, `serve`, `migrate`, `bootstrap`, `integrity`, `user create`, `version`.

Exit codes: 0 done, 1 it failed (or `integrity` found a violation), 2 wrong usage or configuration. An error is one line
on standard error with the cause and the next step.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import uvloop
from cyclopts import App, CycloptsError, Parameter

from stockade import __version__

app = App(
    name="stockade",
    version=__version__,
    help="Inventory for a company that runs it itself. Start here: `stockade up` brings everything up on this machine.",
)
user = App(name="user", help="Accounts, from the machine that the database trusts.")
app.command(user)


@app.command
def up(
    *,
    data: Annotated[
        Path | None, Parameter(help="Where everything is kept. Default: below your home; for root /var/lib/stockade.")
    ] = None,
    port: Annotated[int, Parameter(help="Port to listen on; 0 takes a free one.")] = 8080,
    host: Annotated[str, Parameter(help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
) -> None:
    """Bring the whole product up on this machine, in the foreground, until Ctrl-C or SIGTERM."""
    from stockade.local import Place, default_data_directory, run_local

    place = Place(data=(data or default_data_directory()).expanduser().absolute(), host=host, port=port)
    _run(run_local(place, _say))


@app.command
def serve(service: Annotated[str, Parameter(help="Such as inventory-service.")]) -> None:
    """Serve one service; everything else comes from the environment (docs/operations.md lists it)."""
    from stockade.kit.context import Lifecycle
    from stockade.kit.logs import start_logging
    from stockade.kit.serving import bind
    from stockade.kit.serving import serve as serve_app
    from stockade.kit.settings import Environment, read_settings
    from stockade.targets import NAMES, assemble_one, service_named

    async def run() -> None:
        target = service_named(service)
        settings = read_settings(Environment(), NAMES)
        start_logging()
        lifecycle = Lifecycle()
        listener = bind(settings.host, settings.port)
        application = assemble_one(target, settings, lifecycle)
        await serve_app(
            application, listener, lifecycle, drain_delay_s=settings.drain_delay_s, drain_limit_s=settings.drain_limit_s
        )  # fmt: skip

    _run(run())


@app.command
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """The entry point of the `stockade` script."""
    try:
        app(exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(2, f"{str(error).strip().splitlines()[0]} (stockade --help shows what there is)")


def _run(work: Any) -> None:
    from stockade.kit.errors import ConfigurationError, Refusal
    from stockade.kit.serving import PortError
    from stockade.postgres import PostgresError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except ConfigurationError as error:
        _fail(2, str(error))
    except (PostgresError, PortError) as error:
        _fail(1, str(error))
    except Refusal as refusal:
        _fail(1, refusal.detail)
    except KeyboardInterrupt:
        _fail(1, "interrupted")


def _say(line: str) -> None:
    print(f"stockade: {line}", flush=True)


def _fail(code: int, line: str) -> None:
    print(f"stockade: {line}", file=sys.stderr)
    raise SystemExit(code)
