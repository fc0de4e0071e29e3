"""A small company to look around in: `stockade up --demo`.

Loaded through the public API like any company would, as the first administrator; every request has a fixed key, so
loading that was interrupted goes on where it was. An installation that has orders already is left alone.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from stockade.kit.auth import AUDIENCE
from stockade.kit.calls import Network, ServiceClient
from stockade.product_catalog.gtins import compute_check_digit
from stockade.user.roles import permissions_of
from stockade.user.signing import SigningKeys

Say = Callable[[str], None]

_LOADER = "demo"
_TOKEN_LIFETIME_S = 600

_CATEGORIES = (("tea", "Tea"), ("tableware", "Tableware"), ("packaging", "Packaging"))
_TEAS = (
    "Assam Breakfast",
    "Darjeeling First Flush",
    "Sencha Makino",
    "Earl Grey",
    "Rooibos",
    "Peppermint",
    "Lapsang Souchong",
)
_TABLEWARE = (
    "Mug, white",
    "Mug, slate",
    "Teapot 1 l",
    "Teapot 0.5 l",
    "Strainer, steel",
    "Kettle 1.2 l",
    "Tray, oak",
    "Cup and saucer",
)
_PACKAGING = ("Mailer box S", "Mailer box L", "Paper tape", "Tissue paper")
_CUSTOMERS = (
    ("HARBOUR", "Harbour Café"),
    ("LINDEN", "Linden Hotel"),
    ("ANN", "Ann Example"),
    ("CORNER", "Corner Shop"),
)
_ORDERS: tuple[tuple[str, tuple[tuple[str, str], ...], str], ...] = (
    ("HARBOUR", (("TEA-001", "10"), ("TEA-004", "6"), ("TAB-001", "24")), "shipped"),
    ("LINDEN", (("TAB-003", "12"), ("TAB-005", "12")), "partly shipped"),
    ("ANN", (("TEA-002", "1"), ("TAB-004", "1"), ("TAB-008", "2")), "allocated"),
    ("CORNER", (("TEA-006", "300"),), "back-ordered in part"),
    ("HARBOUR", (("TEA-001", "5"),), "cancelled"),
)


async def load_demo(address: str, keys: SigningKeys, issuer: str, say: Say) -> None:
    """Load the company into the product that answers at `address`."""

    async def fetch_token() -> str:
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": _LOADER,
            "kind": "user",
            "iat": now,
            "exp": now + _TOKEN_LIFETIME_S,
        }
        return keys.sign(claims | {"roles": ["admin"], "permissions": sorted(permissions_of(["admin"]))})

    client = ServiceClient(service="demo", target="stockade", transport=Network(address), fetch_token=fetch_token)
    try:
        if (await client.get("/api/v1/orders", query={"limit": 1}))["items"]:
            say("demo: there are orders already, nothing is loaded")
            return
        company = _Company(client)
        say("demo: products and warehouses")
        await company.open()
        say("demo: goods arrive")
        await company.buy()
        say("demo: customers order")
        await company.sell()
        say("demo: the company Harbour Tea & Tableware is loaded")
    finally:
        await client.close()


class _Company:
    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    async def _post(self, path: str, body: Any, key: str) -> Any:
        return await self._client.post(f"/api/v1{path}", body, key=f"demo-{key}", timeout_s=30)

    async def open(self) -> None:
        for code, name in (("MAIN", "Main warehouse"), ("EAST", "Warehouse East")):
            await self._post("/warehouses", {"code": code, "name": name}, f"warehouse-{code}")
        for code in ("A-01", "A-02", "QC"):
            await self._post("/locations", {"warehouse": "MAIN", "code": code}, f"location-{code}")
        for code, name in _CATEGORIES:
            await self._post("/categories", {"code": code, "name": name}, f"category-{code}")
        await self._post("/products/bulk", {"products": _products()}, "products")

    async def buy(self) -> None:
        for code, name, days in (("LEAF", "Leaf & Co.", 14), ("CLAY", "Clayworks", 30)):
            await self._post("/suppliers", {"code": code, "name": name, "lead_time_days": days}, f"supplier-{code}")
        teas = [sku for sku, *_ in _catalogue() if sku.startswith("TEA")]
        others = [sku for sku, *_ in _catalogue() if not sku.startswith("TEA")]
        await self._receive("LEAF", "MAIN", teas, "120", "3.2", lot="2026-A")
        await self._receive("CLAY", "MAIN", others, "60", "4.75")
        await self._receive("CLAY", "EAST", others, "20", "4.75")
        damaged = {"sku": "TAB-001", "warehouse": "MAIN", "quantity": "2", "to_status": "damaged"}
        await self._post("/movements", {"type": "status_change", "reason": "broken", "lines": [damaged]}, "damaged")
        found = {"sku": "PAC-003", "warehouse": "MAIN", "quantity": "3"}
        await self._post("/movements", {"type": "adjustment", "reason": "found", "lines": [found]}, "found")

    async def _receive(
        self, supplier: str, warehouse: str, skus: Sequence[str], quantity: str, cost: str, *, lot: str | None = None
    ) -> None:
        key = f"{supplier}-{warehouse}"
        lines = [{"sku": sku, "quantity": quantity, "unit_cost": cost} for sku in skus]
        order = await self._post(
            "/purchase-orders", {"supplier": supplier, "warehouse": warehouse, "lines": lines}, f"buy-{key}"
        )
        for step in ("approve", "send"):
            await self._post(f"/purchase-orders/{order['id']}/{step}", {}, f"{step}-{key}")
        expires_on = (datetime.now(UTC) + timedelta(days=540)).date().isoformat()
        parts = [
            {"line_id": line["id"], "quantity": quantity} | ({"lot": lot, "expires_on": expires_on} if lot else {})
            for line in order["lines"]
        ]
        await self._post(f"/purchase-orders/{order['id']}/receive", {"lines": parts}, f"receive-{key}")

    async def sell(self) -> None:
        for code, name in _CUSTOMERS:
            await self._post("/customers", {"code": code, "name": name}, f"customer-{code}")
        for number, (customer, lines, fate) in enumerate(_ORDERS):
            body = {
                "customer": customer,
                "warehouse": "MAIN",
                "allocate": "partial",
                "lines": [{"sku": sku, "quantity": quantity, "unit_price": "9.9"} for sku, quantity in lines],
            }
            order = await self._post("/orders", body, f"order-{number}")
            await self._decide(order, fate, number)

    async def _decide(self, order: Any, fate: str, number: int) -> None:
        path = f"/orders/{order['id']}"
        if fate == "shipped":
            await self._post(f"{path}/ship", {}, f"ship-{number}")
            back = {"line": 3, "quantity": "1", "disposition": "damaged"}
            await self._post(
                "/returns", {"order_id": order["id"], "lines": [back], "reason": "Handle broken"}, f"return-{number}"
            )
        elif fate == "partly shipped":
            await self._post(f"{path}/ship", {"lines": [{"line": 1, "quantity": "5"}]}, f"ship-{number}")
        elif fate == "cancelled":
            await self._post(f"{path}/cancel", {}, f"cancel-{number}")


def _catalogue() -> list[tuple[str, str, str]]:
    """SKU, name and category of every article."""
    groups = (("TEA", "tea", _TEAS), ("TAB", "tableware", _TABLEWARE), ("PAC", "packaging", _PACKAGING))
    return [
        (f"{prefix}-{n:03}", name, category)
        for prefix, category, names in groups
        for n, name in enumerate(names, start=1)
    ]


def _products() -> list[dict[str, Any]]:
    products: list[dict[str, Any]] = []
    for number, (sku, name, category) in enumerate(_catalogue(), start=1):
        # 200 to 299 is the range of numbers for use inside a company (GS1 General Specifications, 1.4.5).
        body = f"20012345{number:04}"
        products.append(
            {
                "sku": sku,
                "name": name,
                "category": category,
                "unit": "each",
                "tracking": "lot" if category == "tea" else "none",
                "barcodes": [f"{body}{compute_check_digit(body)}"],
                "price": "9.9",
            }
        )
    return products
