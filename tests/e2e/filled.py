"""The product with one of each thing in it, and clients that know every operation of it."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg

from stockade.local import DATABASE, LocalSecrets
from stockade.postgres import OWNER_ROLE, find_socket_directory
from stockade.targets import SCHEMAS
from stockade.user.signing import SigningKeys, read_signing_keys
from tests.e2e.processes import everything_up, passable_directory
from tests.world import issue_token

METHODS = ("get", "post", "patch", "put", "delete")


@dataclass(frozen=True)
class Operation:
    """A method at an address of the merged document."""

    method: str
    path: str
    document: dict[str, Any]

    def parameter(self, name: str) -> dict[str, Any] | None:
        return next((found for found in self.document.get("parameters", ()) if found["name"] == name), None)

    def demands(self, header: str) -> bool:
        found = self.parameter(header)
        return found is not None and found["required"]

    def matches(self, address: str) -> bool:
        # A code may have slashes, an id has none.
        names_code = any(
            "format" not in each["schema"] for each in self.document.get("parameters", ()) if each["in"] == "path"
        )
        part = ".+" if names_code else "[^/]+"
        return re.fullmatch(re.sub(r"\\{\w+\\}", part, re.escape(self.path)), address) is not None

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass
class Product:
    """The running product, what is in it, and who asks."""

    url: str
    session: aiohttp.ClientSession
    database: asyncpg.Connection
    keys: SigningKeys
    operations: list[Operation]
    ids: dict[str, str]
    """What stands for the parameter of an address, by the first name of the address."""
    data: Path

    def token(self, *roles: str, **claims: Any) -> str:
        claims = {"exp": int(time.time()) + 3_600} | claims
        return issue_token(roles, subject=self.ids["users"], keys=self.keys, **claims)

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = "", token: str | None = "", **more: Any
    ) -> aiohttp.ClientResponse:
        """An answer that is read; as an administrator and with a key of its own unless others are given."""
        headers: dict[str, str] = more.pop("headers", {})
        if token is not None:
            headers = {"Authorization": f"Bearer {token or self.token('admin')}"} | headers
        if key is not None and method == "POST":
            headers = {"Idempotency-Key": key or str(uuid4())} | headers
        if body is not None:
            more["json"] = body
        async with self.session.request(method, f"{self.url}/api/v1{path}", headers=headers, **more) as answer:
            await answer.read()
        return answer

    async def make(self, path: str, body: Any, *, expect: int = 201, key: str | None = "") -> Any:
        answer = await self.ask("POST", path, body, key=key)
        assert answer.status == expect, f"{path}: {answer.status} {await answer.text()}"
        return await answer.json()

    def address_of(self, operation: Operation) -> str:
        """The operation's address with something that exists in the place of its parameter."""
        before, brace, rest = operation.path.partition("{")
        return before + self.ids[before.strip("/").partition("/")[0]] + rest.partition("}")[2] if brace else before

    async def rows(self) -> dict[str, Any]:
        """How many rows each table has, and a sum over what is in them."""
        tables = await self.database.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY ($1) ORDER BY 1, 2", list(SCHEMAS)
        )
        return {
            f"{schema}.{table}": await self.database.fetchrow(
                f'SELECT count(*), sum(hashtext(t::text)) FROM "{schema}"."{table}" t'
            )
            for schema, table in tables
        }

    @contextlib.asynccontextmanager
    async def unchanged(self) -> AsyncGenerator[None]:
        before = await self.rows()
        assert len(before) > 25
        yield
        after = await self.rows()
        assert {table for table in before if before[table] != after[table]} == set()


@contextlib.asynccontextmanager
async def filled_product() -> AsyncGenerator[Product]:
    """`stockade up` on a new directory, with one of each thing in it."""
    with passable_directory() as directory:
        data = directory / "data"
        async with everything_up(data) as (url, _), aiohttp.ClientSession() as session:
            database = await enter(data)
            keys = read_signing_keys(LocalSecrets(data).of_tokens().value())
            async with session.get(f"{url}/openapi.json") as answer:
                document = await answer.json()
            operations = [
                Operation(method, path.removeprefix("/api/v1"), item[method])
                for path, item in document["paths"].items()
                for method in METHODS
                if method in item
            ]
            administrator = await database.fetchval('SELECT id::text FROM "user".accounts')
            product = Product(url, session, database, keys, operations, {"users": administrator}, data)
            await fill(product)
            await wait_until_heard(database)
            yield product
            await database.close()


async def enter(data: Path) -> asyncpg.Connection:
    """The database of a running `stockade up`, as the owner of every table."""
    password = LocalSecrets(data).of_role(OWNER_ROLE).value()
    return await asyncpg.connect(
        host=str(find_socket_directory(data)), port=5432, user=OWNER_ROLE, password=password, database=DATABASE
    )


async def wait_until_heard(database: asyncpg.Connection) -> None:
    """Until the inventory has heard what the catalog told, so that nothing is written any more without being asked."""
    async with asyncio.timeout(30):
        while True:
            if await database.fetchval(_IS_HEARD):
                return
            await asyncio.sleep(0.1)


_IS_HEARD = """
    SELECT (SELECT max(position) FROM product_catalog.outbox)
         = (SELECT position FROM inventory.feed_cursors WHERE source = 'product-catalog-service')
"""


async def fill(product: Product) -> None:
    """One of each thing, so that an address can be asked for what exists."""
    ids = product.ids
    ids["warehouses"] = (await product.make("/warehouses", {"code": "MAIN", "name": "Main"}))["code"]
    ids["products"] = ids["items"] = ids["stock"] = (await product.make("/products", {"sku": "A-1", "name": "Kettle"}))[
        "sku"
    ]
    await product.make("/products/bulk", {"products": [{"sku": "B-2", "name": "Lid", "barcodes": ["B2"]}]}, expect=200)
    ids["barcodes"] = "B2"
    await product.make("/categories", {"code": "POTS", "name": "Pots"})
    ids["movements"] = (await product.make("/movements", movement("100")))["id"]
    held = await product.make("/reservations", {"lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": "1"}]})
    ids["reservations"] = held["id"]
    ids["customers"] = (await product.make("/customers", {"code": "ANN", "name": "Ann"}))["id"]
    ids["orders"] = (await product.make("/orders", {"warehouse": "MAIN", "lines": [{"sku": "A-1", "quantity": "2"}]}))[
        "id"
    ]
    ship = {"lines": [{"line": 1, "quantity": "1"}]}
    ids["shipments"] = (await product.make(f"/orders/{ids['orders']}/ship", ship))["id"]
    back = {"order_id": ids["orders"], "lines": [{"line": 1, "quantity": "1", "disposition": "restock"}]}
    ids["returns"] = (await product.make("/returns", back))["id"]
    ids["suppliers"] = (await product.make("/suppliers", {"code": "LEAF", "name": "Leaf"}))["id"]
    purchase = await product.make("/purchase-orders", purchase_order("5"))
    ids["purchase-orders"] = purchase["id"]
    for step in ("approve", "send"):
        await product.make(f"/purchase-orders/{purchase['id']}/{step}", None, expect=200)
    part = {"lines": [{"line_id": purchase["lines"][0]["id"], "quantity": "1"}]}
    ids["purchase-order line"] = purchase["lines"][0]["id"]
    ids["receipts"] = (await product.make(f"/purchase-orders/{purchase['id']}/receive", part))["id"]


def movement(quantity: Any, **line: Any) -> dict[str, Any]:
    return {"type": "receipt", "lines": [{"sku": "A-1", "warehouse": "MAIN", "quantity": quantity} | line]}


def purchase_order(quantity: Any, **line: Any) -> dict[str, Any]:
    return {"supplier": "LEAF", "warehouse": "MAIN", "lines": [{"sku": "A-1", "quantity": quantity} | line]}
