"""The table of services, and how one or all of them are put together.

A service does not know where the others run: in one process the clients call their application objects, elsewhere they
call the addresses of the settings. Nothing else differs between the topologies.
"""

from collections.abc import Callable, Iterable, Mapping

from fastapi import FastAPI

from stockade.inventory.api import SERVICE as INVENTORY
from stockade.kit.app import create_app
from stockade.kit.auth import TokenVerifier
from stockade.kit.background import Background
from stockade.kit.calls import InProcess, Network, ServiceClient, ServiceTokens, Transport
from stockade.kit.context import Context, Lifecycle, Service
from stockade.kit.database import Database, connect
from stockade.kit.errors import ConfigurationError
from stockade.kit.logs import start_logging
from stockade.kit.migrations import apply_migrations, load_migrations
from stockade.kit.settings import Environment, Settings, read_settings
from stockade.order.api import SERVICE as ORDER
from stockade.product_catalog.api import SERVICE as PRODUCT_CATALOG
from stockade.serving import bind, serve
from stockade.supplier.api import SERVICE as SUPPLIER
from stockade.user.api import SERVICE as USER

SERVICES: tuple[Service, ...] = (USER, PRODUCT_CATALOG, INVENTORY, ORDER, SUPPLIER)
NAMES: tuple[str, ...] = tuple(service.name for service in SERVICES)
SCHEMAS: tuple[str, ...] = tuple(service.schema for service in SERVICES)


def service_named(name: str) -> Service:
    for service in SERVICES:
        if service.name == name:
            return service
    raise ConfigurationError(f"There is no service {name!r}; choose one of {', '.join(NAMES)}.")


def assemble_all(settings_of: Mapping[str, Settings], lifecycle: Lifecycle) -> dict[str, FastAPI]:
    """The applications of all services for one process, each calling the others directly."""
    apps: dict[str, FastAPI] = {}

    def in_process(name: str) -> Transport:
        return InProcess(lambda: apps[name])

    for service in SERVICES:
        apps[service.name] = _assemble(service, settings_of[service.name], lifecycle, in_process)
    return apps


def assemble_one(service: Service, settings: Settings, lifecycle: Lifecycle) -> FastAPI:
    """The application of one service for a process of its own, calling the others over HTTP and itself directly."""
    apps: dict[str, FastAPI] = {}

    def over_network(name: str) -> Transport:
        return InProcess(lambda: apps[name]) if name == service.name else Network(settings.service_urls[name])

    apps[service.name] = _assemble(service, settings, lifecycle, over_network)
    return apps[service.name]


async def serve_one(name: str) -> None:
    """Serve one service, as the environment says, until a stop signal."""
    service = service_named(name)
    settings = read_settings(Environment(), NAMES)
    start_logging()
    lifecycle = Lifecycle()
    listener = bind(settings.host, settings.port)
    app = assemble_one(service, settings, lifecycle)
    await serve(app, listener, lifecycle, drain_delay_s=settings.drain_delay_s, drain_limit_s=settings.drain_limit_s)


async def migrate(
    services: Iterable[Service], *, url: str, user: str | None, password: str | None, role_of: Callable[[str], str]
) -> dict[str, list[str]]:
    """Apply what is missing, as the owner of the schemas; the names applied, by service."""
    applied: dict[str, list[str]] = {}
    for service in services:
        connection = await connect(
            url, user=user, password=password, application="stockade-migrate", schema=service.schema
        )
        try:
            applied[service.name] = await apply_migrations(
                connection, load_migrations(service.package), service_role=role_of(service.schema)
            )
        finally:
            await connection.close()
    return applied


def _assemble(
    service: Service, settings: Settings, lifecycle: Lifecycle, transport_to: Callable[[str], Transport]
) -> FastAPI:
    context = _build_context(service, settings, lifecycle, transport_to)
    # Here and not in the application's lifespan, where a wrong setting would end the process with a stack trace.
    service.prepare(context)
    return create_app(context)


def _build_context(
    service: Service, settings: Settings, lifecycle: Lifecycle, transport_to: Callable[[str], Transport]
) -> Context:
    secret = settings.service_secret
    if secret is None:
        raise ConfigurationError(
            f"STOCKADE_SERVICE_SECRET (or STOCKADE_SERVICE_SECRET_FILE) is not set: {service.name} needs it for its token"
        )
    anonymous = ServiceClient(
        service=service.name, target="user-service", transport=transport_to("user-service"), fetch_token=None
    )
    tokens = ServiceTokens(service=service.name, client=anonymous, read_secret=secret.value)
    clients = {
        other.name: ServiceClient(
            service=service.name, target=other.name, transport=transport_to(other.name), fetch_token=tokens.fetch
        )
        for other in SERVICES
        if other.name != service.name
    }
    return Context(
        service=service,
        settings=settings,
        database=Database(
            service=service.name, schema=service.schema, access=settings.database, pool_size=settings.database_pool_size
        ),
        clients=clients,
        verifier=TokenVerifier(fetch_keys=lambda: anonymous.get("/.well-known/jwks.json"), issuer=settings.issuer),
        lifecycle=lifecycle,
        background=Background(service.name),
    )
