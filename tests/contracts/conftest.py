"""How one service reaches another in these tests: its own clients and tokens, the provider's real application."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping

import pytest
import uvicorn
from fastapi import FastAPI

from stockade.kit.calls import Network, ServiceClient, ServiceTokens
from stockade.serving import bind
from tests.world import World

Reach = Callable[[str, str], ServiceClient]
"""The client of a consumer for a provider."""


@pytest.fixture(params=["in process", "over HTTP"])
async def reach(request: pytest.FixtureRequest, world: World) -> AsyncGenerator[Reach]:
    """Both transports of `stockade.kit.calls`: what a contract promises must not depend on the topology."""
    if request.param == "in process":
        yield lambda consumer, provider: world.context(consumer).clients[provider]
        return
    async with contextlib.AsyncExitStack() as stack:
        urls = await stack.enter_async_context(serving(world.front.apps))

        def over_http(consumer: str, provider: str) -> ServiceClient:
            secret = world.context(consumer).settings.service_secret
            assert secret is not None
            anonymous = _client(consumer, "user-service", urls["user-service"], stack)
            tokens = ServiceTokens(service=consumer, client=anonymous, read_secret=secret.value)
            return _client(consumer, provider, urls[provider], stack, tokens)

        yield over_http


def _client(
    consumer: str, provider: str, url: str, stack: contextlib.AsyncExitStack, tokens: ServiceTokens | None = None
) -> ServiceClient:
    client = ServiceClient(
        service=consumer, target=provider, transport=Network(url), fetch_token=tokens.fetch if tokens else None
    )
    stack.push_async_callback(client.close)
    return client


class _Server(uvicorn.Server):
    """Leaves the signals of the test run alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(apps: Mapping[str, FastAPI]) -> AsyncGenerator[dict[str, str]]:
    """Applications that run already, each on a port of its own; their addresses."""
    listeners = {name: bind("127.0.0.1", 0) for name in apps}
    servers = {
        name: _Server(uvicorn.Config(app, loop="none", http="httptools", ws="none", lifespan="off", log_config=None))
        for name, app in apps.items()
    }
    tasks = [asyncio.create_task(server.serve(sockets=[listeners[name]])) for name, server in servers.items()]
    try:
        async with asyncio.timeout(10):
            while not all(server.started for server in servers.values()):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        yield {name: f"http://127.0.0.1:{listener.getsockname()[1]}" for name, listener in listeners.items()}
    finally:
        for server in servers.values():
            server.should_exit = True
        await asyncio.wait_for(asyncio.gather(*tasks), 15)
