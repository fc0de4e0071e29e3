"""Sessions: log-in, rotating refresh tokens, log-out; and the short tokens of the services themselves."""

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stockade.kit.auth import AUDIENCE, Actor
from stockade.kit.context import Context
from stockade.kit.database import Connection
from stockade.kit.errors import ConfigurationError, TooMany, Unauthenticated
from stockade.kit.ids import uuid7
from stockade.kit.settings import Secret
from stockade.user.accounts import record
from stockade.user.passwords import hash_password, verify_password
from stockade.user.roles import SERVICE_PERMISSIONS, permissions_of
from stockade.user.shapes import ServiceToken, Tokens
from stockade.user.signing import SigningKeys, read_signing_keys

_FREE_FAILURES = 5
_LOCK_MAX_S = 900


@dataclass(frozen=True)
class _Holder:
    """The account behind a session, as its tokens tell it."""

    id: UUID
    roles: list[str]
    password_change_required: bool


def signing_keys(context: Context) -> SigningKeys:
    """The keys of the configured secret; a secret file that changed is read again."""
    secret = context.settings.jwt_secret
    if secret is None:
        raise ConfigurationError(
            "STOCKADE_JWT_SECRET (or STOCKADE_JWT_SECRET_FILE) is not set: the user-service signs tokens with it"
        )
    return read_signing_keys(secret.value())


async def log_in(context: Context, *, email: str, password: str) -> Tokens:
    """Tokens for an account. The answer to a wrong password and to an unknown address is the same, and as slow."""
    account = await context.database.read(_find_by_email, email=email)
    locked_until = account["locked_until"] if account else None
    if locked_until and locked_until > datetime.now(UTC):
        wait_s = int((locked_until - datetime.now(UTC)).total_seconds()) + 1
        refusal = TooMany(f"Too many wrong passwords; try again in {wait_s} seconds.", code="account_locked")
        refusal.headers["Retry-After"] = str(wait_s)
        raise refusal
    if not await verify_password(password, account["password_hash"] if account and account["is_active"] else None):
        if account:
            await context.database.run(_note_failure, account_id=account["id"])
        raise Unauthenticated("The address or the password is wrong.", code="wrong_credentials")
    assert account is not None, "a missing account never verifies"
    token = _new_token()
    holder = _Holder(account["id"], account["roles"], account["password_change_required"])
    session = uuid7()
    await context.database.run(
        _begin_session,
        account_id=holder.id,
        session=session,
        token=token,
        lifetime_s=context.settings.refresh_token_lifetime_s,
    )
    return _issue(context, holder, session, token)


async def refresh(context: Context, *, token: str) -> Tokens:
    """New tokens for a refresh token, which is used up. A token that comes a second time ends its whole session."""
    following = _new_token()
    found = await context.database.run(
        _rotate, token=token, following=following, lifetime_s=context.settings.refresh_token_lifetime_s
    )
    if found is None:
        raise Unauthenticated("The refresh token is not valid any more; sign in again.", code="invalid_refresh_token")
    holder, session = found
    return _issue(context, holder, session, following)


async def end_session(connection: Connection, *, token: str) -> None:
    """Log out: no refresh token of the session works any more. An unknown token is nothing to end."""
    await connection.execute(
        """
        UPDATE refresh_tokens SET revoked_at = now()
         WHERE revoked_at IS NULL AND session_id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)
        """,
        _hash(token),
    )


async def change_password(context: Context, *, actor: Actor, current: str, new: str) -> None:
    """Replace the actor's own password; every other session of the account ends."""
    stored = await context.database.read(_read_hash, account_id=UUID(actor.id))
    if not await verify_password(current, stored):
        raise Unauthenticated("The current password is wrong.", code="wrong_credentials")
    await context.database.run(_replace_password, actor=actor, password_hash=await hash_password(new))


def issue_service_token(context: Context, *, service: str, secret: str) -> ServiceToken:
    """A short token for a service that shows its own secret (one file a service in STOCKADE_SERVICE_SECRETS_DIRECTORY)."""
    expected = _read_service_secret(context, service)
    if expected is None or not hmac.compare_digest(expected.encode(), secret.encode()):
        raise Unauthenticated("Unknown service or wrong secret.", code="wrong_credentials")
    lifetime_s = context.settings.access_token_lifetime_s
    claims = _claims(context, service, "service", lifetime_s) | {"permissions": sorted(SERVICE_PERMISSIONS[service])}
    return ServiceToken(access_token=signing_keys(context).sign(claims), expires_in=lifetime_s)


async def forget_old_tokens(connection: Connection) -> None:
    """Delete a bounded batch of refresh tokens that ended more than a week ago."""
    await connection.execute(
        """
        DELETE FROM refresh_tokens WHERE token_hash IN (
            SELECT token_hash FROM refresh_tokens WHERE expires_at < now() - interval '7 days' LIMIT 5000)
        """
    )


def _issue(context: Context, holder: _Holder, session: UUID, token: str) -> Tokens:
    lifetime_s = context.settings.access_token_lifetime_s
    claims = _claims(context, str(holder.id), "user", lifetime_s) | {
        "roles": holder.roles,
        "permissions": sorted(permissions_of(holder.roles)),
        "sid": str(session),
    }
    return Tokens(
        access_token=signing_keys(context).sign(claims),
        expires_in=lifetime_s,
        refresh_token=token,
        password_change_required=holder.password_change_required,
    )


def _claims(context: Context, subject: str, kind: str, lifetime_s: int) -> dict[str, object]:
    now = int(time.time())
    return {
        "iss": context.settings.issuer,
        "aud": AUDIENCE,
        "sub": subject,
        "kind": kind,
        "iat": now,
        "exp": now + lifetime_s,
    }


def _read_service_secret(context: Context, service: str) -> str | None:
    directory = context.settings.service_secrets_directory
    if directory is None or service not in SERVICE_PERMISSIONS:
        return None
    try:
        return Secret(f"the secret of {service}", path=directory / service).value()
    except ConfigurationError:
        return None


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def _find_by_email(connection: Connection, *, email: str):
    return await connection.fetchrow(
        "SELECT id, password_hash, roles, is_active, locked_until, password_change_required FROM accounts WHERE email = $1",
        email,
    )


async def _read_hash(connection: Connection, *, account_id: UUID) -> str | None:
    return await connection.fetchval("SELECT password_hash FROM accounts WHERE id = $1 AND is_active", account_id)


async def _note_failure(connection: Connection, *, account_id: UUID) -> None:
    failures = await connection.fetchval(
        "UPDATE accounts SET failures = failures + 1 WHERE id = $1 RETURNING failures", account_id
    )
    if failures >= _FREE_FAILURES:
        lock_s = min(_LOCK_MAX_S, 15 * 2 ** (failures - _FREE_FAILURES))
        await connection.execute(
            "UPDATE accounts SET locked_until = now() + $2 WHERE id = $1", account_id, timedelta(seconds=lock_s)
        )
    actor = Actor(id=str(account_id), kind="user", permissions=frozenset())
    await record(
        connection, actor=actor, action="session.refused", account_id=account_id, details={"failures": failures}
    )


async def _begin_session(
    connection: Connection, *, account_id: UUID, session: UUID, token: str, lifetime_s: int
) -> None:
    await connection.execute("UPDATE accounts SET failures = 0, locked_until = NULL WHERE id = $1", account_id)
    await _keep_token(connection, account_id=account_id, session=session, token=token, lifetime_s=lifetime_s)
    actor = Actor(id=str(account_id), kind="user", permissions=frozenset())
    await record(
        connection, actor=actor, action="session.began", account_id=account_id, details={"session": str(session)}
    )


async def _keep_token(connection: Connection, *, account_id: UUID, session: UUID, token: str, lifetime_s: int) -> None:
    await connection.execute(
        "INSERT INTO refresh_tokens (token_hash, session_id, account_id, expires_at) VALUES ($1, $2, $3, now() + $4)",
        _hash(token), session, account_id, timedelta(seconds=lifetime_s),
    )  # fmt: skip


async def _rotate(
    connection: Connection, *, token: str, following: str, lifetime_s: int
) -> tuple[_Holder, UUID] | None:
    row = await connection.fetchrow(
        """
        SELECT t.session_id, t.account_id, t.used_at, t.revoked_at, t.expires_at < now() AS is_expired,
               a.roles, a.is_active, a.password_change_required
          FROM refresh_tokens t JOIN accounts a ON a.id = t.account_id
         WHERE t.token_hash = $1 FOR UPDATE OF t
        """,
        _hash(token),
    )
    if row is None:
        return None
    if row["used_at"] is not None:
        # Somebody holds a copy: neither the thief nor the owner may go on with this session.
        await connection.execute(
            "UPDATE refresh_tokens SET revoked_at = now() WHERE session_id = $1 AND revoked_at IS NULL",
            row["session_id"],
        )
        actor = Actor(id=str(row["account_id"]), kind="user", permissions=frozenset())
        await record(
            connection,
            actor=actor,
            action="session.reuse_detected",
            account_id=row["account_id"],
            details={"session": str(row["session_id"])},
        )
        return None
    if row["revoked_at"] is not None or row["is_expired"] or not row["is_active"]:
        return None
    await connection.execute("UPDATE refresh_tokens SET used_at = now() WHERE token_hash = $1", _hash(token))
    await _keep_token(
        connection, account_id=row["account_id"], session=row["session_id"], token=following, lifetime_s=lifetime_s
    )
    return _Holder(row["account_id"], row["roles"], row["password_change_required"]), row["session_id"]


async def _replace_password(connection: Connection, *, actor: Actor, password_hash: str) -> None:
    account_id = UUID(actor.id)
    await connection.execute(
        "UPDATE accounts SET password_hash = $2, password_change_required = false, version = version + 1 WHERE id = $1",
        account_id,
        password_hash,
    )
    await connection.execute(
        """
        UPDATE refresh_tokens SET revoked_at = now()
         WHERE account_id = $1 AND session_id IS DISTINCT FROM $2 AND revoked_at IS NULL
        """,
        account_id, actor.session,
    )  # fmt: skip
    await record(connection, actor=actor, action="account.password_changed", account_id=account_id)
