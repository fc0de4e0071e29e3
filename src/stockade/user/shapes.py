"""What the user-service is asked and answers."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StrictBool, StringConstraints

from stockade.kit.shapes import Email, Name, Shape
from stockade.user.passwords import LENGTH_MAX, LENGTH_MIN

LowerEmail = Annotated[Email, StringConstraints(to_lower=True)]
"""An address to sign in with, in any case."""
Password = Annotated[str, StringConstraints(min_length=1, max_length=LENGTH_MAX)]
NewPassword = Annotated[str, StringConstraints(min_length=LENGTH_MIN, max_length=LENGTH_MAX)]
RoleName = Literal["admin", "manager", "warehouse", "sales", "purchasing", "auditor", "viewer"]
Roles = Annotated[list[RoleName], Field(max_length=7)]


class Login(Shape):
    email: LowerEmail
    password: Password


class Tokens(Shape):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of the scheme, not a token
    expires_in: int
    """Seconds."""
    refresh_token: str
    password_change_required: bool = False


class RefreshToken(Shape):
    refresh_token: Annotated[str, StringConstraints(min_length=20, max_length=200)]


class PasswordChange(Shape):
    current: Password
    new: NewPassword


class NewAccount(Shape):
    email: LowerEmail
    name: Name
    password: NewPassword
    roles: Roles


class AccountChange(Shape):
    name: Name | None = None
    roles: Roles | None = None
    is_active: StrictBool | None = None


class Account(Shape):
    id: UUID
    email: str
    name: str
    roles: list[str]
    is_active: bool
    password_change_required: bool
    version: int
    created_at: datetime


class Role(Shape):
    name: str
    description: str
    permissions: list[str]


class AuditEntry(Shape):
    id: UUID
    at: datetime
    actor: str
    action: str
    account_id: UUID | None
    details: dict[str, Any]


class ServiceLogin(Shape):
    service: Annotated[str, StringConstraints(max_length=64)]
    secret: Annotated[str, StringConstraints(max_length=512)]


class ServiceToken(Shape):
    access_token: str
    expires_in: int
