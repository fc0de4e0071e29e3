"""The inventory-service away, or its answers lost on the way: the client hears 503, asks again, and nothing was done twice."""

from dataclasses import dataclass

import pytest

from stockade.kit.calls import Answer, Breaker, Network, Outgoing, ServiceClient, Transport
from tests.order.selling import amounts, check_integrity, fetch, open_shop, order_of, orders_context, place, stock_of
from tests.world import World


@dataclass
class LosesAnswers:
    """Carries every request and loses the answers to those whose path ends so."""

    transport: Transport
    path: str

    async def send(self, request: Outgoing) -> Answer:
        answer = await self.transport.send(request)
        if request.target.endswith(self.path):
            raise TimeoutError
        return answer

    async def close(self) -> None:
        await self.transport.close()


def inventory_of(world: World) -> ServiceClient:
    return orders_context(world).clients["inventory-service"]


def heal(client: ServiceClient, transport: Transport) -> None:
    client._transport = transport
    client._breaker = Breaker()


async def test_while_the_inventory_is_away_orders_wait_unseen(world: World, unused_port: int):
    api = await open_shop(world)
    await orders_context(world).background.stop()
    client = inventory_of(world)
    transport = client._transport
    heal(client, Network(f"http://127.0.0.1:{unused_port}"))
    answer = await api.request("POST", "/orders", order_of(("A-1", "4")), key="k")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert "Retry-After" in answer.headers
    assert (await api.get("/orders"))["items"] == []
    await client.close()
    heal(client, transport)
    order = await place(api, ("A-1", "4"), key="k")
    assert amounts(order) == {"allocated": "4"}
    assert len(await fetch(world, "SELECT id FROM orders")) == 1
    await check_integrity(world)


@pytest.mark.parametrize("path", ["/reservations", "/confirm"])
async def test_an_order_whose_answers_were_lost_is_placed_once(world: World, path: str):
    api = await open_shop(world)
    await orders_context(world).background.stop()
    client = inventory_of(world)
    transport = client._transport
    heal(client, LosesAnswers(transport, path))
    await place(api, ("A-1", "4"), key="k", expect=503)
    assert await stock_of(api) == ("10", "4", "6")
    heal(client, transport)
    order = await place(api, ("A-1", "4"), key="k")
    assert amounts(order) == {"allocated": "4"}
    assert await stock_of(api) == ("10", "4", "6")
    assert len((await api.get("/reservations"))["items"]) == 1
    await check_integrity(world)


async def test_a_shipment_and_a_return_whose_answers_were_lost_are_posted_once(world: World):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    await orders_context(world).background.stop()
    client = inventory_of(world)
    transport = client._transport
    heal(client, LosesAnswers(transport, "/consume"))
    await api.post(f"/orders/{order['id']}/ship", key="s", expect=503)
    assert await stock_of(api) == ("6", "0", "6")
    assert (await api.get("/shipments"))["items"] == []
    heal(client, transport)
    await api.post(f"/orders/{order['id']}/ship", key="s")
    assert await stock_of(api) == ("6", "0", "6")
    body = {"order_id": order["id"], "lines": [{"line": 1, "quantity": "3", "disposition": "restock"}]}
    heal(client, LosesAnswers(transport, "/movements"))
    await api.post("/returns", body, key="r", expect=503)
    heal(client, transport)
    await api.post("/returns", body, key="r")
    assert await stock_of(api) == ("9", "0", "9")
    assert amounts(await api.get(f"/orders/{order['id']}")) == {"shipped": "4", "returned": "3"}
    await check_integrity(world)


async def test_a_cancellation_is_done_though_the_inventory_is_away(world: World, unused_port: int):
    api = await open_shop(world)
    order = await place(api, ("A-1", "4"))
    client = inventory_of(world)
    transport = client._transport
    heal(client, Network(f"http://127.0.0.1:{unused_port}"))
    assert (await api.post(f"/orders/{order['id']}/cancel", expect=200))["status"] == "cancelled"
    assert await fetch(world, "SELECT step FROM allocations") == [("release",)]
    await client.close()
    heal(client, transport)
    await api.post(f"/orders/{order['id']}/cancel", expect=200)
    assert await stock_of(api) == ("10", "0", "10")
    await check_integrity(world)
