"""What the inventory-service asks others."""

from collections.abc import Mapping, Sequence
from typing import Any

from stockade.kit.calls import ServiceClient

_SKUS_MAX = 500


async def fetch_products(catalog: ServiceClient, *, skus: Sequence[str]) -> list[dict[str, Any]]:
    """What the catalog knows of these SKUs; unknown ones are absent."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(skus), _SKUS_MAX):
        answer = await catalog.get("/internal/products", query={"sku": skus[start : start + _SKUS_MAX]})
        found.extend(answer["items"])
    return found


async def fetch_findings(client: ServiceClient) -> list[Mapping[str, Any]]:
    """The self-audit of another service."""
    return await client.get("/internal/integrity", timeout_s=120)
