"""What every service asks of the user-service, and of whoever has a feed: tokens, keys, events."""

import time
from collections.abc import Sequence
from typing import Any

import pytest

from stockade.kit.auth import TokenVerifier
from stockade.kit.calls import ServiceTokens
from stockade.kit.database import Connection
from stockade.kit.errors import Forbidden, Invalid, Unavailable
from stockade.kit.events import Consumer
from stockade.targets import NAMES
from stockade.user.roles import SERVICE_PERMISSIONS, permissions_of
from tests.contracts.conftest import Reach
from tests.world import World

USERS, CATALOG = "user-service", "product-catalog-service"


@pytest.mark.parametrize("consumer", [name for name in NAMES if name != USERS])
async def test_the_token_of_a_service_is_verified_with_the_published_keys(world: World, reach: Reach, consumer: str):
    users = reach(consumer, USERS)
    secret = world.context(consumer).settings.service_secret
    assert secret is not None
    tokens = ServiceTokens(service=consumer, client=users, read_secret=secret.value)
    token = await tokens.fetch()
    assert await tokens.fetch() == token
    verifier = TokenVerifier(fetch_keys=lambda: users.get("/.well-known/jwks.json"), issuer="stockade")
    actor = await verifier.verify(token)
    assert (actor.id, actor.kind, actor.permissions) == (consumer, "service", SERVICE_PERMISSIONS[consumer])
    person = await verifier.verify(world.as_("sales").token or "")
    assert (person.kind, person.roles, person.permissions) == ("user", ("sales",), permissions_of(["sales"]))


async def test_a_service_with_a_wrong_secret_gets_no_token(reach: Reach):
    tokens = ServiceTokens(service="order-service", client=reach("order-service", USERS), read_secret=lambda: "a guess")
    with pytest.raises(Unavailable) as refused:
        await tokens.fetch()
    assert refused.value.code == "service_unavailable"


async def test_a_token_is_renewed_before_it_ends(world: World, reach: Reach):
    secret = world.context("order-service").settings.service_secret
    assert secret is not None
    tokens = ServiceTokens(service="order-service", client=reach("order-service", USERS), read_secret=secret.value)
    await tokens.fetch()
    lifetime_s = world.context(USERS).settings.access_token_lifetime_s
    planned = tokens._renew_at
    assert time.monotonic() + lifetime_s / 2 < planned < time.monotonic() + lifetime_s
    tokens._renew_at = time.monotonic()
    await tokens.fetch()
    assert tokens._renew_at > planned


async def test_the_feed_of_the_catalog_reaches_a_consumer_once_and_in_order(world: World, reach: Reach):
    heard: list[dict[str, Any]] = []

    async def apply(_: Connection, events: Sequence[Any]) -> None:
        heard.extend(events)

    api = world.as_("manager")
    made = await api.post("/products", {"sku": "A-1", "name": "Kettle", "tracking": "lot"})
    await api.patch("/products/A-1", {"name": "Pot", "is_active": False}, if_match='"1"')
    consumer = Consumer(world.context("supplier-service").database, reach("supplier-service", CATALOG), apply)
    for _ in range(2):
        if len(heard) < 2:
            await consumer.follow()
    assert [(event["type"], event["subject"], event["specversion"]) for event in heard] == [
        ("product.created", made["id"], "1.0"),
        ("product.changed", made["id"], "1.0"),
    ]
    content = {"id": made["id"], "sku": "A-1", "unit": "each", "tracking": "lot"}
    assert heard[0]["data"] == content | {"name": "Kettle", "is_active": True, "version": 1}
    assert heard[1]["data"] == content | {"name": "Pot", "is_active": False, "version": 2}
    assert heard[0]["position"] < heard[1]["position"]
    assert {event["source"] for event in heard} == {f"/{CATALOG}"}


async def test_the_feed_refuses_what_it_cannot_read_and_whom_it_does_not_know(reach: Reach):
    with pytest.raises(Invalid) as refused:
        await reach("order-service", CATALOG).get("/internal/events", query={"after": "yesterday"})
    assert refused.value.errors[0]["pointer"] == "query/after"
    with pytest.raises(Forbidden) as forbidden:
        await reach(CATALOG, "inventory-service").get("/internal/events")
    assert (forbidden.value.code, forbidden.value.data["needs"]) == ("forbidden", "events:read")
