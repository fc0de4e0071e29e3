"""Routes of the user-service."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from stockade.kit.auth import Actor, authenticate, require
from stockade.kit.context import Context, Ctx, Service
from stockade.kit.errors import ConfigurationError
from stockade.kit.etags import IfMatch, tag
from stockade.kit.idempotency import OptionalKey, answer_once
from stockade.kit.pages import CursorText, Page, PageSize
from stockade.user import accounts, sessions
from stockade.user.passwords import hash_password
from stockade.user.roles import ROLES
from stockade.user.shapes import (
    Account,
    AccountChange,
    AuditEntry,
    Login,
    NewAccount,
    PasswordChange,
    RefreshToken,
    Role,
    ServiceLogin,
    ServiceToken,
    Tokens,
)

router = APIRouter(prefix="/api/v1")
root = APIRouter(include_in_schema=False)


@router.post("/auth/login", tags=["auth"])
async def post_login(context: Ctx, body: Login) -> Tokens:
    """Sign in with address and password."""
    return await sessions.log_in(context, email=body.email, password=body.password)


@router.post("/auth/refresh", tags=["auth"])
async def post_refresh(context: Ctx, body: RefreshToken) -> Tokens:
    """Exchange a refresh token, which works once, for new tokens."""
    return await sessions.refresh(context, token=body.refresh_token)


@router.post("/auth/logout", tags=["auth"], status_code=204)
async def post_logout(context: Ctx, body: RefreshToken) -> None:
    """End the session that a refresh token belongs to."""
    await context.database.run(sessions.end_session, token=body.refresh_token)


@router.post("/auth/password", tags=["auth"], status_code=204)
async def post_password(context: Ctx, body: PasswordChange, actor: Annotated[Actor, Depends(authenticate)]) -> None:
    """Change the own password."""
    await sessions.change_password(context, actor=actor, current=body.current, new=body.new)


@router.get("/auth/me", tags=["auth"])
async def get_me(context: Ctx, actor: Annotated[Actor, Depends(authenticate)]) -> Account:
    """The account of the token."""
    return await context.database.read(accounts.get_account, account_id=UUID(actor.id))


@router.get("/users", tags=["users"])
async def get_users(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("users:read")
) -> Page[Account]:
    return await context.database.read(accounts.list_accounts, limit=limit, cursor=cursor)


@router.post("/users", tags=["users"], status_code=201, response_model=Account)
async def post_user(
    context: Ctx, body: NewAccount, key: OptionalKey, actor: Actor = require("users:write")
) -> Response:
    """Make an account."""
    password_hash = await hash_password(body.password)
    return await answer_once(
        context.database,
        key,
        accounts.create_account,
        actor=actor,
        email=body.email,
        name=body.name,
        password_hash=password_hash,
        roles=list(body.roles),
    )


@router.get("/users/{account_id}", tags=["users"])
async def get_user(context: Ctx, account_id: UUID, response: Response, _: Actor = require("users:read")) -> Account:
    account = await context.database.read(accounts.get_account, account_id=account_id)
    tag(response, account.version)
    return account


@router.patch("/users/{account_id}", tags=["users"])
async def patch_user(
    context: Ctx,
    account_id: UUID,
    body: AccountChange,
    response: Response,
    if_match: IfMatch,
    actor: Actor = require("users:write"),
) -> Account:
    """Change name, roles or activity of an account."""
    account = await context.database.run(
        accounts.change_account, actor=actor, account_id=account_id, change=body, if_match=if_match
    )
    tag(response, account.version)
    return account


@router.get("/roles", tags=["roles"])
async def get_roles(_: Annotated[Actor, Depends(authenticate)]) -> Page[Role]:
    """The roles and what they permit."""
    items = [
        Role(name=name, description=text, permissions=sorted(permissions))
        for name, (text, permissions) in ROLES.items()
    ]
    return Page(items=items, next=None)


@router.get("/audit-log", tags=["audit-log"])
async def get_audit_log(
    context: Ctx, limit: PageSize = 100, cursor: CursorText = None, _: Actor = require("audit:read")
) -> Page[AuditEntry]:
    """Who was given access, by whom; the newest first."""
    return await context.database.read(accounts.list_audit_log, limit=limit, cursor=cursor)


@router.get("/.well-known/jwks.json", tags=["auth"])
@root.get("/.well-known/jwks.json")
async def get_jwks(context: Ctx) -> dict[str, Any]:
    """The public keys of the tokens (RFC 7517)."""
    return sessions.signing_keys(context).public_document()


@root.post("/internal/service-tokens")
async def post_service_token(context: Ctx, body: ServiceLogin) -> ServiceToken:
    return sessions.issue_service_token(context, service=body.service, secret=body.secret)


def _prepare(context: Context) -> None:
    sessions.signing_keys(context)
    directory = context.settings.service_secrets_directory
    if directory is not None and not directory.is_dir():
        raise ConfigurationError(f"STOCKADE_SERVICE_SECRETS_DIRECTORY names no directory: {directory}")
    context.background.repeat(
        "forget old tokens", lambda: context.database.run(sessions.forget_old_tokens), every_s=3600
    )


SERVICE = Service(
    name="user-service",
    package="stockade.user",
    owns=("auth", "users", "roles", "api-keys", "audit-log", ".well-known"),
    routers=(router, root),
    prepare=_prepare,
)
