"""What this service asks of others: stock, reservations and movements of the inventory-service, products of the catalog.

A refusal (409, 422, 404) means that the other service decided, and arrives as it is. Everything else means that nobody
knows whether it was carried out, and becomes Unavailable: the same call with the same key is then the way to find out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from stockade.kit.calls import ServiceClient
from stockade.kit.errors import Conflict, Invalid, NotFound, Refusal, Unavailable
from stockade.kit.shapes import plain
from stockade.order.shapes import Available

HOLD_S = 900
_SKUS_PER_CALL = 100
_PAGES_MAX = 1_000
_PAGE_SIZE = 1_000


@dataclass(frozen=True)
class Reservation:
    id: UUID
    granted: Mapping[int, Decimal]
    """By line of the reservation, beginning with 1."""


async def hold(
    inventory: ServiceClient,
    *,
    key: str,
    reference: str,
    mode: str,
    warehouse: str,
    lines: Sequence[tuple[str, Decimal]],
    person: str,
) -> Reservation:
    """Hold stock for SKUs and quantities for 15 minutes. Raises Conflict `insufficient_stock` with what is available."""
    body = {
        "reference": reference,
        "expires_in_s": HOLD_S,
        "mode": mode,
        "lines": [{"sku": sku, "warehouse": warehouse, "quantity": plain(quantity)} for sku, quantity in lines],
    }
    answer = await _post(inventory, "/api/v1/reservations", body, key=key, person=person)
    return Reservation(UUID(answer["id"]), {int(line["line"]): Decimal(line["quantity"]) for line in answer["lines"]})


async def confirm(inventory: ServiceClient, *, reservation_id: UUID, person: str) -> None:
    """Make a hold last. Raises Conflict when it has expired or was released."""
    await _post(inventory, f"/api/v1/reservations/{reservation_id}/confirm", {}, key=None, person=person)


async def release(inventory: ServiceClient, *, reservation_id: UUID, person: str) -> None:
    """Give back what is left of a reservation; there being nothing to give back is as good."""
    try:
        await _post(inventory, f"/api/v1/reservations/{reservation_id}/release", {}, key=None, person=person)
    except (Conflict, NotFound):
        return


async def consume(
    inventory: ServiceClient,
    *,
    key: str,
    reservation_id: UUID,
    reference: str,
    lines: Sequence[tuple[int, Decimal]],
    person: str,
) -> UUID:
    """Ship from a confirmed reservation; the movement that did it. Raises Conflict when it does not hold that much."""
    body = {"reference": reference, "lines": [{"line": line, "quantity": plain(taken)} for line, taken in lines]}
    path = f"/api/v1/reservations/{reservation_id}/consume"
    return UUID((await _post(inventory, path, body, key=key, person=person))["movement_id"])


async def receive_return(
    inventory: ServiceClient, *, key: str, reference: str, lines: Sequence[Mapping[str, Any]], person: str
) -> UUID:
    """Take goods back from a customer; the movement that did it."""
    body = {"type": "receipt", "reason": "customer_return", "reference": reference, "lines": lines}
    return UUID((await _post(inventory, "/api/v1/movements", body, key=key, person=person))["id"])


async def read_stock(inventory: ServiceClient, skus: Sequence[str]) -> list[Available]:
    """What every warehouse has available of these SKUs now; a SKU that was never anywhere is absent."""
    found: list[Available] = []
    for start in range(0, len(skus), _SKUS_PER_CALL):
        query = {"sku": list(skus[start : start + _SKUS_PER_CALL]), "limit": _PAGE_SIZE}
        found += [
            Available(sku=item["sku"], warehouse=item["warehouse"], available=Decimal(item["available"]))
            for item in await _get_all(inventory, "/api/v1/stock", query)
        ]
    return found


async def list_warehouses(inventory: ServiceClient) -> list[str]:
    """The codes of all warehouses, in order."""
    return sorted(item["code"] for item in await _get_all(inventory, "/api/v1/warehouses", {"limit": _PAGE_SIZE}))


async def check_products(catalog: ServiceClient, skus: Sequence[str]) -> None:
    """Refuse what the catalog does not know or does not sell any more; the place in `skus` is the line of the body."""
    answer = await catalog.get("/internal/products", query={"sku": sorted(set(skus))})
    active = {item["sku"]: bool(item["is_active"]) for item in answer["items"]}
    for place, sku in enumerate(skus):
        if sku not in active:
            raise Invalid.field(f"/lines/{place}/sku", "unknown_sku", f"There is no product {sku}.")
        if not active[sku]:
            raise Invalid.field(f"/lines/{place}/sku", "inactive_product", f"The product {sku} is not sold any more.")


async def _get_all(client: ServiceClient, path: str, query: Mapping[str, Any]) -> list[Any]:
    items: list[Any] = []
    cursor: str | None = None
    for _ in range(_PAGES_MAX):
        page = await client.get(path, query={**query, "cursor": cursor} if cursor else query)
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            return items
    raise Unavailable(f"{client.target} has more of {path} than can be read here.")


async def _post(client: ServiceClient, path: str, body: Mapping[str, Any], *, key: str | None, person: str) -> Any:
    try:
        return await client.post(path, body, key=key, on_behalf_of=person)
    except (Conflict, Invalid, NotFound, Unavailable):
        raise
    except Refusal as refusal:
        raise Unavailable(
            f"{client.target} does not do this for order-service ({refusal.code}); an operator must look.",
            code="service_refused",
        ) from refusal
