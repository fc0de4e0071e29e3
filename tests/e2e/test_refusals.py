"""What the product refuses: always as a problem document that tells a program and a person why, and without any trace.

One `stockade up` with a little of everything; every refusal is asked for through its port, and afterwards every row of
every table is as it was.
"""

import base64
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from stockade.user.roles import permissions_of
from stockade.user.signing import read_signing_keys
from tests.e2e.filled import METHODS, Operation, Product, filled_product, movement, purchase_order
from tests.world import issue_token

PROBLEM = {"type", "title", "status", "code", "detail", "request_id"}
TRACES = ("Traceback", 'File "', ".py", "asyncpg", "pydantic", "sqlalchemy", "SELECT ", "INSERT ")
PUBLIC = {"/auth/login", "/auth/refresh", "/auth/logout", "/.well-known/jwks.json"}
FOR_EVERYBODY = {"/auth/me", "/auth/password", "/roles"}
"""What needs a token and no permission."""


@pytest.fixture(scope="module")
async def product() -> AsyncIterator[Product]:
    async with filled_product() as product:
        yield product


async def check_problem(answer: aiohttp.ClientResponse, status: int, code: str | None = None) -> dict[str, Any]:
    """It is a complete problem document with this status (and code), of this request, and tells nothing of the inside."""
    text = await answer.text()
    said = f"{answer.method} {answer.url.path} {answer.status} {text[:500]}"
    assert answer.status == status, said
    assert answer.content_type == "application/problem+json", said
    document = json.loads(text)
    assert document.keys() >= PROBLEM, said
    assert (document["status"], document["request_id"]) == (status, answer.headers["X-Request-ID"]), said
    assert document["type"] == f"urn:stockade:problem:{document['code']}", said
    assert document["title"], said
    assert document["detail"], said
    assert not any(trace in text for trace in TRACES), said
    assert code is None or document["code"] == code, said
    return document


# Who asks.


async def test_every_operation_refuses_whoever_has_no_token(product: Product):
    async with product.unchanged():
        for operation in product.operations:
            if operation.path in PUBLIC:
                continue
            for token in (None, "nonsense"):
                answer = await product.ask(
                    operation.method.upper(), product.address_of(operation), token=token, key=None
                )
                await check_problem(answer, 401, "unauthenticated" if token is None else "invalid_token")
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_every_operation_refuses_whoever_has_no_permission(product: Product):
    nobody = product.token()
    async with product.unchanged():
        refused = [each for each in product.operations if each.path not in PUBLIC | FOR_EVERYBODY]
        for operation in refused:
            answer = await product.ask(operation.method.upper(), product.address_of(operation), token=nobody, key=None)
            problem = await check_problem(answer, 403, "forbidden")
            assert problem["needs"] in permissions_of(["admin"]), operation.name
    assert len(refused) > 60


async def test_no_role_may_do_what_its_permissions_do_not_say(product: Product):
    changes = [each for each in product.operations if each.path not in PUBLIC | FOR_EVERYBODY and each.method != "get"]
    nobody, tried = product.token(), 0
    async with product.unchanged():
        for operation in changes:
            method, address = operation.method.upper(), product.address_of(operation)
            needs = (await (await product.ask(method, address, token=nobody, key=None)).json())["needs"]
            for role in ("viewer", "auditor", "warehouse", "sales", "purchasing", "manager"):
                if needs not in permissions_of([role]):
                    answer = await product.ask(method, address, token=product.token(role), key=None)
                    assert (await check_problem(answer, 403, "forbidden"))["needs"] == needs
                    tried += 1
    assert tried > 80


def forged_tokens(product: Product) -> dict[str, str]:
    good = product.token("admin")
    header, claims, signature = good.split(".")
    none_header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    secret = OctKey.import_key(json.dumps(product.keys.public_document()))
    hmac_header = {"alg": "HS256", "kid": product.keys.keys[0].thumbprint(), "typ": "JWT"}
    content = {"iss": "stockade", "aud": "stockade", "sub": "x", "kind": "user", "permissions": ["users:write"]}
    return {
        "expired": product.token("admin", exp=int(time.time()) - 60),
        "without an end": product.token("admin", exp=None),
        "of another issuer": product.token("admin", iss="somebody"),
        "for another audience": product.token("admin", aud="somebody"),
        "of another kind": product.token("admin", kind="god"),
        "without permissions": product.token("admin", permissions=None),
        "with a session that is none": product.token("admin", sid="me"),
        "signed with another key": issue_token(
            ("admin",), keys=read_signing_keys("another secret of the very same length")
        ),
        "signed with nothing": f"{none_header}.{claims}.",
        "signed with the public key as a secret": jwt.encode(
            hmac_header, content | {"exp": int(time.time()) + 60}, secret, algorithms=["HS256"]
        ),
        "cut off": f"{header}.{claims}",
        "with other claims": f"{header}.{claims[:-4]}AAAA.{signature}",
        "with another signature": f"{header}.{claims}.{signature[:-4]}AAAA",
        "too long": good + "A" * 20_000,
        "not even one": "Ä" * 10,
    }


async def test_no_forged_token_is_taken(product: Product):
    async with product.unchanged():
        for kind, token in forged_tokens(product).items():
            answer = await product.ask("GET", "/users", headers={"Authorization": f"Bearer {token}"}, token=None)
            assert (await check_problem(answer, 401, "invalid_token"))["code"] == "invalid_token", kind
        for scheme in ("Basic dXNlcjpwYXNzd29yZA==", "Bearer", "Bearer ", f"Token {product.token('admin')}"):
            answer = await product.ask("GET", "/users", headers={"Authorization": scheme}, token=None)
            await check_problem(answer, 401)


# What is asked.

WRONG_QUANTITIES: list[Any] = [
    "0", "-1", "0.0000001", "1000000000000", "1e3", " 1", "1,5", "NaN", "Infinity", "", "one", 1, 1.5, None, True, [], {},
]  # fmt: skip
LINES = {
    "/movements": ("lines", movement),
    "/reservations": ("lines", lambda quantity: {"lines": movement(quantity)["lines"]}),
    "/orders": ("lines", lambda quantity: {"lines": [{"sku": "A-1", "quantity": quantity}]}),
    "/purchase-orders": ("lines", purchase_order),
}


@pytest.mark.parametrize("path", LINES)
async def test_a_quantity_that_makes_no_sense_is_refused(product: Product, path: str):
    name, make_body = LINES[path]
    async with product.unchanged():
        for quantity in WRONG_QUANTITIES:
            problem = await check_problem(await product.ask("POST", path, make_body(quantity)), 422)
            pointers = {error["pointer"] for error in problem["errors"]}
            # That a movement must not be zero or negative depends on its type, so it is told of the whole body.
            assert pointers in ({f"/{name}/0/quantity"}, {""}), (quantity, problem)


@pytest.mark.parametrize("path", LINES)
async def test_too_many_lines_are_refused(product: Product, path: str):
    name, make_body = LINES[path]
    body = make_body("1")
    body[name] *= 10_000
    async with product.unchanged():
        problem = await check_problem(await product.ask("POST", path, body), 422)
        assert problem["errors"][0]["code"] == "too_long"
        body[name] = []
        problem = await check_problem(await product.ask("POST", path, body), 422)
        assert problem["errors"][0]["code"] == "too_short"


UNKNOWN = [
    ("/movements", movement("1", sku="NONE"), "unknown_sku", "/lines/0/sku"),
    ("/movements", movement("1", warehouse="NONE"), "unknown_warehouse", "/lines/0/warehouse"),
    ("/movements", movement("1", location="NONE"), "unknown_location", "/lines/0/location"),
    ("/reservations", {"lines": movement("1", sku="NONE")["lines"]}, "unknown_sku", "/lines/0/sku"),
    ("/reservations", {"lines": movement("1", warehouse="NONE")["lines"]}, "unknown_warehouse", "/lines/0/warehouse"),
    ("/orders", {"lines": [{"sku": "NONE", "quantity": "1"}]}, "unknown_sku", "/lines/0/sku"),
    ("/orders", {"lines": [{"sku": "NONE", "quantity": "1"}], "warehouse": "MAIN"}, "unknown_sku", "/lines/0/sku"),
    ("/orders", {"lines": [{"sku": "A-1", "quantity": "1"}], "warehouse": "NONE"}, "unknown_warehouse", "/warehouse"),
    ("/orders", {"lines": [{"sku": "A-1", "quantity": "1"}], "customer": "NONE"}, "unknown_customer", "/customer"),
    ("/purchase-orders", purchase_order("1", sku="NONE"), "unknown_sku", "/lines/0/sku"),
    ("/purchase-orders", purchase_order("1") | {"supplier": "NONE"}, "unknown_supplier", "/supplier"),
    ("/products", {"sku": "C-3", "name": "Pot", "unit": "NONE"}, "unknown_unit", "/unit"),
    ("/products", {"sku": "C-3", "name": "Pot", "category": "NONE"}, "unknown_category", "/category"),
]


@pytest.mark.parametrize(("path", "body", "code", "pointer"), UNKNOWN)
async def test_a_name_that_nobody_knows_is_refused(product: Product, path: str, body: Any, code: str, pointer: str):
    async with product.unchanged():
        problem = await check_problem(await product.ask("POST", path, body), 422, code)
        assert [error["pointer"] for error in problem["errors"]] == [pointer]


async def test_every_address_of_a_thing_that_is_not_there_is_404(product: Product):
    async with product.unchanged():
        for operation in product.operations:
            if "{" not in operation.path:
                continue
            before, _, rest = operation.path.partition("{")
            parameter = operation.document["parameters"][0]
            assert parameter["in"] == "path", operation.name
            nothing = str(uuid4()) if parameter["schema"].get("format") == "uuid" else "NOTHING"
            body = BODIES[operation.path](product) if operation.path in BODIES else OTHER_BODIES.get(operation.path)
            answer = await product.ask(
                operation.method.upper(), before + nothing + rest.partition("}")[2], body, headers={"If-Match": '"1"'}
            )
            await check_problem(answer, 404)
            if parameter["schema"].get("format") == "uuid":
                address = f"{before}7{rest.partition('}')[2]}"
                answer = await product.ask(operation.method.upper(), address, body, headers={"If-Match": '"1"'})
                await check_problem(answer, 422)


BROKEN_BODIES: list[tuple[str, bytes, int]] = [
    ("invalid UTF-8", b'{"code": "\xff\xfe", "name": "x"}', 400),
    ("half of a surrogate pair", b'{"code": "X-1", "name": "\\ud800"}', 422),
    ("a NUL", b'{"code": "X-1", "name": "a\\u0000b"}', 422),
    ("a control character", b'{"code": "X-1", "name": "a\\u0007b"}', 422),
    ("not JSON", b"code=X", 400),
    ("cut off", b'{"code": "X-1", "name": ', 400),
    ("nothing", b"", 422),
    ("null", b"null", 422),
    ("a number", b"17", 422),
    ("a text", b'"X-1"', 422),
    ("a list", b'[{"code": "X-1", "name": "x"}]', 422),
    ("an unknown member", b'{"code": "X-1", "name": "x", "colour": "red"}', 422),
    ("a number for a text", b'{"code": 1, "name": "x"}', 422),
    ("an object for a text", b'{"code": {"$ne": ""}, "name": "x"}', 422),
    ("a text that is too long", b'{"code": "X-1", "name": "' + b"x" * 201 + b'"}', 422),
    ("deep nesting", b"[" * 200_000, 400),
    ("a deep object", b'{"code":' * 50_000, 400),
    ("a huge number", b'{"code": ' + b"9" * 100_000 + b', "name": "x"}', 400),
]


@pytest.mark.parametrize(("body", "status"), [row[1:] for row in BROKEN_BODIES], ids=[row[0] for row in BROKEN_BODIES])
async def test_a_body_that_is_broken_is_refused(product: Product, body: bytes, status: int):
    async with product.unchanged():
        headers = {"Content-Type": "application/json"}
        await check_problem(await product.ask("POST", "/warehouses", data=body, headers=headers), status)


async def test_a_body_of_another_type_is_refused(product: Product):
    async with product.unchanged():
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
            body, headers = b'{"code": "X-1", "name": "x"}', {"Content-Type": kind}
            await check_problem(await product.ask("POST", "/warehouses", data=body, headers=headers), 422)


async def test_a_body_of_5_mb_is_refused_however_it_comes(product: Product):
    body = json.dumps({"code": "X-1", "name": "x" * 5_000_000}).encode()

    async def in_parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    async with product.unchanged():
        headers = {"Content-Type": "application/json"}
        for data in (body, in_parts()):
            answer = await product.ask("POST", "/warehouses", data=data, headers=dict(headers))
            problem = await check_problem(answer, 413, "body_too_large")
            assert problem["limit_bytes"] == 1_048_576


# Headers and queries, on every operation that takes them.

BODIES = {
    "/movements": lambda _: movement("1"),
    "/movements/{movement_id}/reverse": lambda _: None,
    "/reservations": lambda _: {"lines": movement("1")["lines"]},
    "/reservations/{reservation_id}/consume": lambda _: {"lines": [{"line": 1, "quantity": "1"}]},
    "/orders": lambda _: {"warehouse": "MAIN", "lines": [{"sku": "A-1", "quantity": "1"}]},
    "/orders/{order_id}/ship": lambda _: {"lines": [{"line": 1, "quantity": "1"}]},
    "/returns": lambda product: {
        "order_id": product.ids["orders"],
        "lines": [{"line": 1, "quantity": "1", "disposition": "restock"}],
    },
    "/purchase-orders": lambda _: purchase_order("1"),
    "/purchase-orders/{order_id}/receive": lambda product: {
        "lines": [{"line_id": product.ids["purchase-order line"], "quantity": "1"}]
    },
}
"""A body that would be taken, for every operation that demands a key."""
CHANGES = {
    "/users/{account_id}": {"name": "Anna"},
    "/products/{sku}": {"name": "Pan"},
    "/warehouses/{code}": {"name": "East"},
    "/customers/{customer_id}": {"name": "Bob"},
    "/suppliers/{supplier_id}": {"name": "Root"},
}
"""A change that would be taken, for every operation that demands If-Match."""


OTHER_BODIES = CHANGES | {"/suppliers/{supplier_id}/items": {"items": [{"sku": "A-1", "unit_cost": "1"}]}}


def demanding(product: Product, header: str) -> list[Operation]:
    return [operation for operation in product.operations if operation.demands(header)]


async def test_every_operation_that_demands_a_key_refuses_to_go_without(product: Product):
    operations = demanding(product, "Idempotency-Key")
    assert {operation.path for operation in operations} == set(BODIES)
    async with product.unchanged():
        for operation in operations:
            body = BODIES[operation.path](product)
            answer = await product.ask("POST", product.address_of(operation), body, key=None)
            await check_problem(answer, 428, "idempotency_key_required")
            for key in ("a b", "ä", "x" * 129):
                answer = await product.ask("POST", product.address_of(operation), body, key=key)
                problem = await check_problem(answer, 422)
                assert problem["errors"][0]["pointer"] == "header/Idempotency-Key"


async def test_every_operation_that_demands_a_key_refuses_one_that_was_used(product: Product):
    key = f"used-{uuid4()}"
    # Each service remembers its own keys.
    await product.make("/movements", movement("7"), key=key)
    await product.make("/orders", {"warehouse": "MAIN", "lines": [{"sku": "A-1", "quantity": "7"}]}, key=key)
    await product.make("/purchase-orders", purchase_order("7"), key=key)
    async with product.unchanged():
        for operation in demanding(product, "Idempotency-Key"):
            body = BODIES[operation.path](product)
            answer = await product.ask("POST", product.address_of(operation), body, key=key)
            problem = await check_problem(answer, 422, "idempotency_key_reused")
            assert problem["errors"][0]["pointer"] == "header/Idempotency-Key"


async def test_every_operation_that_demands_if_match_refuses_what_is_stale(product: Product):
    operations = demanding(product, "If-Match")
    assert {operation.path for operation in operations} == set(CHANGES)
    async with product.unchanged():
        for operation in operations:
            address, change = product.address_of(operation), CHANGES[operation.path]
            await check_problem(await product.ask("PATCH", address, change), 428, "if_match_required")
            for tag in ('"0"', '"7"', "1", 'W/"nonsense"', '"1'):
                answer = await product.ask("PATCH", address, change, headers={"If-Match": tag})
                problem = await check_problem(answer, 412, "stale_version")
                assert problem["current"] == (await product.ask("GET", address)).headers["ETag"]


async def test_every_list_refuses_a_cursor_that_is_none(product: Product):
    lists = [operation for operation in product.operations if operation.parameter("cursor")]
    assert len(lists) > 15
    async with product.unchanged():
        for operation in lists:
            for cursor in ("nonsense", "W10", "WyJhIl0x", "bnVsbA", "WzFd" * 2, "WyIAIl0", "ä"):
                answer = await product.ask("GET", product.address_of(operation), params={"cursor": cursor})
                await check_problem(answer, 422, "unknown_cursor")
            answer = await product.ask("GET", product.address_of(operation), params={"cursor": "A" * 401})
            await check_problem(answer, 422)


async def test_every_parameter_of_every_query_refuses_nonsense(product: Product):
    tried = 0
    async with product.unchanged():
        for operation in product.operations:
            for parameter in operation.document.get("parameters", ()):
                if parameter["in"] != "query" or parameter["name"] == "cursor":
                    continue
                for value in nonsense_for(parameter["schema"]):
                    answer = await product.ask(
                        operation.method.upper(), product.address_of(operation), params={parameter["name"]: value}
                    )
                    problem = await check_problem(answer, 422)
                    assert problem["errors"][0]["pointer"].startswith(f"query/{parameter['name']}"), operation.name
                    tried += 1
    assert tried > 50


def nonsense_for(schema: dict[str, Any]) -> list[str]:
    """Values that the schema of a parameter excludes; a parameter that takes everything is a defect of its own."""
    variants = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    (kind,) = [each["items"] if each.get("type") == "array" else each for each in variants]
    found: list[str] = []
    if kind["type"] in ("integer", "boolean"):
        found += ["nonsense", "1.5", ""]
    if "maximum" in kind:
        found += [str(kind["maximum"] + 1), "9" * 30]
    if "minimum" in kind:
        found += [str(kind["minimum"] - 1)]
    if "enum" in kind or "format" in kind:
        found += ["nonsense"]
    if "maxLength" in kind:
        found += ["x" * (kind["maxLength"] + 1)]
    if "pattern" in kind:
        found += [text for text in ("\x01", "ä ö") if not re.search(kind["pattern"], text)]
    assert found, schema
    return found


# Addresses and methods.


async def test_an_address_that_is_none_is_404_and_a_wrong_method_405(product: Product):
    async with product.unchanged():
        for path in ("/", "/nothing", "/products/A-1/nothing/at/all", "/../internal/events", "/warehouses/MAIN/x"):
            await check_problem(await product.ask("GET", path), 404)
        for path in (
            "/internal/events",
            "/internal/products?sku=A-1",
            "/internal/service-tokens",
            "/internal/integrity",
        ):
            async with product.session.get(f"{product.url}{path}") as answer:
                await answer.read()
            await check_problem(answer, 404, "no_such_route")
        for operation in product.operations:
            address = product.address_of(operation)
            allowed = {other.method.upper() for other in product.operations if other.matches(address)}
            for method in {method.upper() for method in METHODS} - allowed:
                answer = await product.ask(method, address)
                await check_problem(answer, 405, "method_not_allowed")
                assert set(answer.headers["Allow"].split(", ")) == allowed
