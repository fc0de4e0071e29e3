"""Accounts: made, listed, changed; who did it is in the audit log."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from stockade.kit.auth import Actor
from stockade.kit.database import Connection, Row
from stockade.kit.errors import Conflict, NotFound
from stockade.kit.etags import check_version
from stockade.kit.ids import uuid7
from stockade.kit.pages import Page, decode_cursor, paginate
from stockade.user.shapes import Account, AccountChange, AuditEntry

BOOTSTRAP = Actor(id="bootstrap", kind="service", permissions=frozenset())
"""Who made the first administrator: nobody with an account."""


async def create_account(
    connection: Connection,
    *,
    actor: Actor,
    email: str,
    name: str,
    password_hash: str,
    roles: list[str],
    password_change_required: bool = False,
) -> Account:
    """A new account. Raises Conflict `email_taken`."""
    try:
        row = await connection.fetchrow(
            """
            INSERT INTO accounts (id, email, name, password_hash, roles, password_change_required) VALUES ($1, $2, $3, $4, $5, $6)
            RETURNING id, email, name, roles, is_active, password_change_required, version, created_at
            """,
            uuid7(), email.lower(), name, password_hash, roles, password_change_required,
        )  # fmt: skip
    except asyncpg.UniqueViolationError as error:
        raise Conflict(f"An account with the address {email} exists already.", code="email_taken") from error
    assert row is not None, "RETURNING gives the row"
    await record(connection, actor=actor, action="account.created", account_id=row["id"], details={"roles": roles})
    return _account(row)


async def count_accounts(connection: Connection) -> int:
    return await connection.fetchval("SELECT count(*) FROM accounts")


async def get_account(connection: Connection, *, account_id: UUID) -> Account:
    row = await connection.fetchrow(
        "SELECT id, email, name, roles, is_active, password_change_required, version, created_at FROM accounts WHERE id = $1",
        account_id,
    )
    if row is None:
        raise NotFound("There is no such account.", code="account_not_found")
    return _account(row)


async def list_accounts(connection: Connection, *, limit: int, cursor: str | None) -> Page[Account]:
    """Accounts by address."""
    (after,) = decode_cursor(cursor, str) or ("",)
    rows = await connection.fetch(
        """
        SELECT id, email, name, roles, is_active, password_change_required, version, created_at
          FROM accounts WHERE email > $1 ORDER BY email LIMIT $2
        """,
        after, limit + 1,
    )  # fmt: skip
    page, following = paginate(rows, limit, lambda row: (row["email"],))
    return Page(items=[_account(row) for row in page], next=following)


async def change_account(
    connection: Connection, *, actor: Actor, account_id: UUID, change: AccountChange, if_match: str
) -> Account:
    """Change what is given. A deactivated account loses its sessions; the last active administrator cannot be lost."""
    current = await connection.fetchrow("SELECT version FROM accounts WHERE id = $1 FOR UPDATE", account_id)
    if current is None:
        raise NotFound("There is no such account.", code="account_not_found")
    check_version(if_match, current["version"])
    row = await connection.fetchrow(
        """
        UPDATE accounts
           SET name = coalesce($2, name), roles = coalesce($3, roles), is_active = coalesce($4, is_active), version = version + 1
         WHERE id = $1
        RETURNING id, email, name, roles, is_active, password_change_required, version, created_at
        """,
        account_id, change.name, change.roles, change.is_active,
    )  # fmt: skip
    assert row is not None, "the row is locked"
    await _check_administrator_remains(connection)
    if not row["is_active"]:
        await connection.execute(
            "UPDATE refresh_tokens SET revoked_at = now() WHERE account_id = $1 AND revoked_at IS NULL", account_id
        )
    details = change.model_dump(exclude_none=True, exclude={"name"})
    await record(connection, actor=actor, action="account.changed", account_id=account_id, details=details)
    return _account(row)


async def list_audit_log(connection: Connection, *, limit: int, cursor: str | None) -> Page[AuditEntry]:
    """The newest entries first."""
    (before,) = decode_cursor(cursor, UUID) or (UUID(int=2**128 - 1),)
    rows = await connection.fetch(
        "SELECT id, at, actor, action, account_id, details FROM audit_log WHERE id < $1 ORDER BY id DESC LIMIT $2",
        before,
        limit + 1,
    )
    page, following = paginate(rows, limit, lambda row: (row["id"],))
    return Page(items=[AuditEntry(**row) for row in page], next=following)


async def record(
    connection: Connection,
    *,
    actor: Actor,
    action: str,
    account_id: UUID | None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Append to the audit log, in the transaction of what it tells of."""
    await connection.execute(
        "INSERT INTO audit_log (id, actor, action, account_id, details) VALUES ($1, $2, $3, $4, $5)",
        uuid7(), actor.responsible, action, account_id, dict(details or {}),
    )  # fmt: skip


async def _check_administrator_remains(connection: Connection) -> None:
    # Two administrators who remove each other at once are serialised by this lock.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('stockade.last_administrator'))")
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM accounts WHERE is_active AND 'admin' = ANY (roles))"):
        raise Conflict("This would leave no active administrator.", code="last_administrator")


def _account(row: Row) -> Account:
    return Account(**row)
