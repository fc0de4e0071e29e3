"""Customers: whom goods are sold to."""

from uuid import UUID

import asyncpg

from stockade.kit.auth import Actor
from stockade.kit.database import Connection
from stockade.kit.errors import Conflict, Invalid, NotFound
from stockade.kit.etags import check_version
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.order.shapes import Customer, CustomerChange, NewCustomer


async def create_customer(connection: Connection, *, actor: Actor, customer: NewCustomer) -> Customer:
    """A new customer. Raises Conflict `customer_code_taken`."""
    try:
        row = await connection.fetchrow(
            """
            INSERT INTO customers (id, code, name, email, address, created_by) VALUES ($1, $2, $3, $4, $5, $6)
            RETURNING id, code, name, email, address, version, created_at
            """,
            uuid7(), customer.code, customer.name, customer.email, customer.address, actor.responsible,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict(
            f"A customer with the code {customer.code} exists already.", code="customer_code_taken"
        ) from error
    assert row is not None, "RETURNING gives the row"
    return Customer(**row)


async def get_customer(connection: Connection, *, customer_id: UUID) -> Customer:
    row = await connection.fetchrow(
        "SELECT id, code, name, email, address, version, created_at FROM customers WHERE id = $1", customer_id
    )
    if row is None:
        raise NotFound("There is no such customer.", code="customer_not_found")
    return Customer(**row)


async def list_customers(connection: Connection, *, limit: int, cursor: str | None) -> Page[Customer]:
    """Customers by code."""
    (after,) = decode_cursor(cursor, str) or ("",)
    rows = await connection.fetch(
        """
        SELECT id, code, name, email, address, version, created_at
          FROM customers WHERE code > $1 ORDER BY code LIMIT $2
        """,
        after, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["code"],))
    return Page(items=[Customer(**row) for row in page], next=following)


async def change_customer(
    connection: Connection, *, customer_id: UUID, change: CustomerChange, if_match: str
) -> Customer:
    """Change what is given; null removes the e-mail or postal address. Raises Stale."""
    version = await connection.fetchval("SELECT version FROM customers WHERE id = $1 FOR UPDATE", customer_id)
    if version is None:
        raise NotFound("There is no such customer.", code="customer_not_found")
    check_version(if_match, version)
    given = change.model_fields_set
    row = await connection.fetchrow(
        """
        UPDATE customers
           SET name = coalesce($2, name), version = version + 1,
               email = CASE WHEN $3 THEN $4 ELSE email END, address = CASE WHEN $5 THEN $6 ELSE address END
         WHERE id = $1
        RETURNING id, code, name, email, address, version, created_at
        """,
        customer_id, change.name, "email" in given, change.email, "address" in given, change.address,
    )  # fmt: skip
    assert row is not None, "the row is locked"
    return Customer(**row)


async def find_customer(connection: Connection, *, code: str) -> UUID:
    """The customer that an order names. Raises Invalid `unknown_customer`."""
    customer_id = await connection.fetchval("SELECT id FROM customers WHERE code = $1", code)
    if customer_id is None:
        raise Invalid.field("/customer", "unknown_customer", f"There is no customer {code}.")
    return customer_id
