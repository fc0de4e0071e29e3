"""Serving an application on a port until a stop signal, and ending without a failed request.

On SIGTERM or SIGINT: readiness says no and every answer asks its client to close the connection (`drain_delay_s`, while
load balancers look away); then the port closes, requests under way finish (`drain_limit_s`), streams end, pools close.
Whoever has connected before the port closes is answered. A second signal does not wait.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import uvicorn

from stockade.kit.context import Lifecycle
from stockade.kit.errors import ConfigurationError

_FIRST_WORD_S = 1.0
"""How long somebody who has connected may take to say what for, once the port is closed."""


class PortError(Exception):
    """The address cannot be listened on; the message is one line with the next step."""


class DrainingServer(uvicorn.Server):
    """uvicorn with the stop of this module's docstring, and without dying of the signal that it handled."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, drain_delay_s: float, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._close_at = float("inf")
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._lifecycle.draining:
            self.should_exit = self.force_exit = True
        self._lifecycle.stopping.set()

    async def on_tick(self, counter: int) -> bool:
        # Whoever watches a database that cannot be kept alive stops us as well as a signal does.
        if self._lifecycle.draining and self._close_at == float("inf"):
            self._close_at = time.monotonic() + self._drain_delay_s
        return await super().on_tick(counter) or time.monotonic() >= self._close_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port as uvicorn does, but reset nobody who had connected: the kernel does that to those it keeps for us."""
        waiting = [connection for listener in sockets or () for connection in _accept_waiting(listener)]
        for port in (*self.servers, *(sockets or ())):
            port.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._make_protocol, connection)
        until = loop.time() + _FIRST_WORD_S
        while self._is_anybody_silent() and loop.time() < until and not self.force_exit:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def _is_anybody_silent(self) -> bool:
        return any(getattr(connection, "cycle", None) is None for connection in self.server_state.connections)


def _accept_waiting(listener: socket.socket) -> Generator[socket.socket]:
    """The connections that the kernel has made and the event loop has not asked for yet."""
    listener.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            yield listener.accept()[0]


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises PortError when the port is taken or the address is not of this machine."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except socket.gaierror as error:
        raise ConfigurationError(f"The host {host!r} is not an address of this machine.") from error
    except OSError as error:
        raise PortError(
            f"Port {port} on {host} cannot be used ({error.strerror}); stop what uses it or choose another with --port."
        ) from error
    return listener


async def serve(
    app: Any,
    listener: socket.socket,
    lifecycle: Lifecycle,
    *,
    drain_delay_s: float,
    drain_limit_s: float,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until a stop signal (or `lifecycle.stopping`), then drain; returns when everything is closed."""
    config = uvicorn.Config(
        app, loop="none", http="httptools", ws="none", lifespan="on", access_log=False, log_config=None, server_header=False,
        timeout_graceful_shutdown=int(drain_limit_s), timeout_keep_alive=30, backlog=2048,
    )  # fmt: skip
    await DrainingServer(config, lifecycle, drain_delay_s, started).serve(sockets=[listener])
