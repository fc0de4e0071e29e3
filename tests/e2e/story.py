"""A day of a real shop, told through the public API of whatever topology runs behind it."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2


@dataclass
class Shop:
    """A signed-in client of a running product."""

    http: httpx2.AsyncClient
    token: str = ""

    async def sign_in(self, email: str, password: str) -> None:
        answer = await self.http.post("/api/v1/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["access_token"]

    async def post(self, path: str, body: Any = None, *, expect: int = 201, key: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key or str(uuid4())}
        answer = await self.http.post(f"/api/v1{path}", json=body, headers=headers)
        assert answer.status_code == expect, f"POST {path}: {answer.status_code}, not {expect}: {answer.text}"
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(f"/api/v1{path}", params=query, headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, f"GET {path}: {answer.status_code}: {answer.text}"
        return answer.json()

    async def available(self, sku: str, warehouse: str = "MAIN") -> str:
        return (await self.get("/stock", sku=sku, warehouse=warehouse))["items"][0]["available"]


SKUS = ("TEA-01", "MUG-02", "POT-03")


async def live_through_a_day(shop: Shop) -> None:
    """From an empty house to a returned mug; asserts every number on the way."""
    await open_house(shop)
    await receive_in_two_parts(shop)
    order = await sell(shop)
    await ship_in_two_parts(shop, order)
    await take_back(shop, order)
    await check_books(shop)


async def open_house(shop: Shop) -> None:
    for code in ("MAIN", "EAST"):
        await shop.post("/warehouses", {"code": code, "name": f"Warehouse {code}"})
    products = [{"sku": sku, "name": f"Article {sku}", "unit": "each"} for sku in SKUS]
    results = (await shop.post("/products/bulk", {"products": products}, expect=200))["results"]
    assert [result["status"] for result in results] == [201, 201, 201]


async def receive_in_two_parts(shop: Shop) -> None:
    await shop.post("/suppliers", {"code": "LEAF", "name": "Leaf & Co."})
    lines = [{"sku": sku, "quantity": "20", "unit_cost": "1.5"} for sku in SKUS]
    purchase = await shop.post("/purchase-orders", {"supplier": "LEAF", "warehouse": "MAIN", "lines": lines})
    for step, status in (("approve", "approved"), ("send", "sent")):
        assert (await shop.post(f"/purchase-orders/{purchase['id']}/{step}", expect=200))["status"] == status
    for quantity, status in (("12", "partially_received"), ("8", "received")):
        parts = [{"line_id": line["id"], "quantity": quantity} for line in purchase["lines"]]
        receipt = await shop.post(f"/purchase-orders/{purchase['id']}/receive", {"lines": parts})
        assert receipt["status"] == "posted"
        assert (await shop.get(f"/purchase-orders/{purchase['id']}"))["status"] == status
    assert [await shop.available(sku) for sku in SKUS] == ["20", "20", "20"]


async def sell(shop: Shop) -> Any:
    await shop.post("/customers", {"code": "ANN", "name": "Ann Example"})
    too_much = [{"sku": "TEA-01", "quantity": "5"}, {"sku": "MUG-02", "quantity": "21"}]
    body = {"customer": "ANN", "warehouse": "MAIN", "lines": too_much, "allocate": "all"}
    refused = await shop.post("/orders", body, expect=409)
    assert (refused["code"], refused["lines"][0]["available"]) == ("insufficient_stock", "20")
    lines = [{"sku": sku, "quantity": "6", "unit_price": "4"} for sku in SKUS]
    body = {"customer": "ANN", "warehouse": "MAIN", "lines": lines, "allocate": "all"}
    order = await shop.post("/orders", body, key="the-first-order")
    assert order["status"] == "allocated"
    assert (await shop.post("/orders", body, key="the-first-order"))["id"] == order["id"]
    assert [await shop.available(sku) for sku in SKUS] == ["14", "14", "14"]
    return order


async def ship_in_two_parts(shop: Shop, order: Any) -> None:
    first = [{"line": line["line"], "quantity": "2"} for line in order["lines"]]
    await shop.post(f"/orders/{order['id']}/ship", {"lines": first})
    assert (await shop.get(f"/orders/{order['id']}"))["status"] == "partially_shipped"
    await shop.post(f"/orders/{order['id']}/ship", {})
    shipped = await shop.get(f"/orders/{order['id']}")
    assert (shipped["status"], {line["shipped"] for line in shipped["lines"]}) == ("shipped", {"6"})
    level = (await shop.get("/stock", sku="TEA-01", warehouse="MAIN"))["items"][0]
    assert (level["on_hand"], level["allocated"], level["available"]) == ("14", "0", "14")


async def take_back(shop: Shop, order: Any) -> None:
    back = {"order_id": order["id"], "lines": [{"line": 2, "quantity": "1", "disposition": "restock"}]}
    await shop.post("/returns", back)
    assert await shop.available("MUG-02") == "15"
    too_many = {"order_id": order["id"], "lines": [{"line": 2, "quantity": "6", "disposition": "restock"}]}
    await shop.post("/returns", too_many, expect=409)


async def check_books(shop: Shop) -> None:
    """Availability, movements and integrity agree."""
    movements = (await shop.get("/movements", limit=100))["items"]
    for sku, on_hand in zip(SKUS, ("14", "15", "14"), strict=True):
        entries = [entry for movement in movements for entry in movement["entries"] if entry["sku"] == sku]
        physical = [entry for entry in entries if not entry["location"].startswith("@")]
        assert sum(int(entry["quantity"]) for entry in entries) == 0
        assert str(sum(int(entry["quantity"]) for entry in physical)) == on_hand
        assert (await shop.get(f"/stock/{sku}"))["on_hand"] == on_hand
    report = await shop.get("/integrity")
    assert report["violations"] == 0, report
    assert {finding["id"] for finding in report["invariants"]} >= {
        "I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I11", "I12", "I13", "I16",
    }  # fmt: skip
    assert all(finding["violations"] == 0 for finding in report["invariants"])
