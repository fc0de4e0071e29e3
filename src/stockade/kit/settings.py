"""Configuration: read once at the start from the environment; secrets may come from files and rotate without a restart.

For every secret `NAME` the variable `NAME_FILE` may name a file instead; the file wins, is read again when it changes
(Kubernetes and Vault swap such files under a running process), and a missing one stops the start. Outside development
(`STOCKADE_ENVIRONMENT=development`) a secret that is known from documentation or too short stops the start as well.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stockade.kit.errors import ConfigurationError

EnvironmentName = Literal["production", "development"]

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[^][:/?#,@\s]*)(:\d{1,5})?"
_ADDRESS = re.compile(rf"^[a-z]+://([^/?#\s]*@)?{_HOST}(,{_HOST})*([/?#]|$)")  # PostgreSQL takes several hosts.
_SECRET_LENGTH_MIN = 12
_DEVELOPMENT_SECRETS = (
    "development-",
    "changeme",
    "change-me",
    "your_",
    "your-",
    "password",
    "secret",
    "postgres",
    "example",
)


class Secret:
    """A secret value, or the file that holds it. Never shows itself in a repr, a log or an error."""

    def __init__(self, name: str, *, value: str | None = None, path: Path | None = None) -> None:
        assert (value is None) != (path is None), "a secret is a value or a file"
        self.name = name
        self._value = value or ""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        if path is not None:
            self._read(path)

    def value(self) -> str:
        """The present value. A file that cannot be read for a moment (it is being swapped) keeps its last value."""
        if self._path is not None:
            try:
                self._read(self._path)
            except ConfigurationError:
                if not self._value:
                    raise
        return self._value

    def _read(self, path: Path) -> None:
        try:
            state = path.stat()
            seen = (state.st_mtime_ns, state.st_ino, state.st_size)
            if seen != self._seen:
                text = path.read_text(encoding="utf-8").strip()
                if not text:
                    raise ConfigurationError(f"{self.name}_FILE names an empty file: {path}")
                self._value, self._seen = text, seen
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigurationError(f"{self.name}_FILE names a file that cannot be read: {path} ({reason})") from error

    def __repr__(self) -> str:
        return f"Secret({self.name})"


@dataclass(frozen=True)
class DatabaseAccess:
    """How to reach the database: an address (with or without credentials) and, where they rotate, user and password apart."""

    url: Secret
    user: Secret | None = None
    password: Secret | None = None

    def current(self) -> tuple[str, str | None, str | None]:
        """The address, user and password of this moment; None leaves what the address says."""
        return self.url.value(), self.user and self.user.value(), self.password and self.password.value()


@dataclass(frozen=True)
class Settings:
    """What one service process is told."""

    environment: EnvironmentName
    database: DatabaseAccess
    database_pool_size: int = 10
    host: str = "127.0.0.1"
    port: int = 8080
    issuer: str = "stockade"
    jwt_secret: Secret | None = None
    service_secret: Secret | None = None
    service_secrets_directory: Path | None = None
    service_urls: Mapping[str, str] = field(default_factory=dict[str, str])
    access_token_lifetime_s: int = 300
    refresh_token_lifetime_s: int = 30 * 86_400
    body_limit_bytes: int = 1_048_576
    request_deadline_s: float = 30.0
    drain_delay_s: float = 0.5
    drain_limit_s: float = 25.0


class Environment:
    """Reads typed values out of environment variables, with errors that say what to do."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.variables = os.environ if variables is None else variables
        name = self.text("STOCKADE_ENVIRONMENT", "production")
        if name not in ("production", "development"):
            raise ConfigurationError(f"STOCKADE_ENVIRONMENT must be production or development, not {name!r}")
        self.name: EnvironmentName = name

    def text(self, name: str, default: str) -> str:
        return self.variables.get(name, "").strip() or default

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        raw = self.text(name, str(default))
        try:
            value = float(raw)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ConfigurationError(f"{name} must be a number from {low:g} to {high:g}, not {raw!r}")
        return value

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.number(name, default, low=low, high=high)
        if value != int(value):
            raise ConfigurationError(f"{name} must be a whole number")
        return int(value)

    def path(self, name: str) -> Path | None:
        raw = self.text(name, "")
        return Path(raw) if raw else None

    def secret(self, name: str, *, strict: bool = True) -> Secret | None:
        """The secret `name` or the content of the file that `name_FILE` names; None when neither is set."""
        path = self.path(f"{name}_FILE")
        value = self.text(name, "")
        if path is None and not value:
            return None
        secret = Secret(name, path=path) if path else Secret(name, value=value)
        if strict and self.name != "development":
            refuse_weak_secret(secret)
        return secret


def refuse_weak_secret(secret: Secret) -> None:
    """Refuse a secret that is known from documentation, or too short to be one."""
    value = secret.value().lower()
    if len(value) < _SECRET_LENGTH_MIN:
        raise ConfigurationError(
            f"{secret.name} is shorter than {_SECRET_LENGTH_MIN} characters: generate one, e.g. with `openssl rand -hex 32`"
        )
    if value.startswith(_DEVELOPMENT_SECRETS):
        raise ConfigurationError(
            f"{secret.name} is a well-known example: generate one, or set STOCKADE_ENVIRONMENT=development"
        )


def _check_address(name: str, address: str, *beginnings: str) -> str:
    if not address.startswith(beginnings) or not _ADDRESS.match(address):
        raise ConfigurationError(f"{name} must start with {beginnings[0]}HOST:PORT, with special characters encoded")
    return address


def read_database(environment: Environment) -> DatabaseAccess:
    """`STOCKADE_DATABASE_URL`, `_USER` and `_PASSWORD`, each also as a file."""
    url = environment.secret("STOCKADE_DATABASE_URL", strict=False)
    if url is None:
        raise ConfigurationError(
            "STOCKADE_DATABASE_URL is not set: give postgresql://HOST:PORT/DATABASE (`stockade up` needs none)"
        )
    _check_address("STOCKADE_DATABASE_URL", url.value(), "postgresql://", "postgres://")
    return DatabaseAccess(
        url=url,
        user=environment.secret("STOCKADE_DATABASE_USER", strict=False),
        password=environment.secret("STOCKADE_DATABASE_PASSWORD"),
    )


def read_settings(environment: Environment, services: tuple[str, ...]) -> Settings:
    """The settings of one service process, from the environment. `services` are the names that may be called."""
    return Settings(
        environment=environment.name,
        database=read_database(environment),
        database_pool_size=environment.whole("STOCKADE_DATABASE_POOL_SIZE", 10, low=1, high=200),
        host=environment.text("STOCKADE_HOST", "127.0.0.1"),
        port=environment.whole("STOCKADE_PORT", 8080, low=0, high=65_535),
        issuer=environment.text("STOCKADE_ISSUER", "stockade"),
        jwt_secret=environment.secret("STOCKADE_JWT_SECRET"),
        service_secret=environment.secret("STOCKADE_SERVICE_SECRET"),
        service_secrets_directory=environment.path("STOCKADE_SERVICE_SECRETS_DIRECTORY"),
        service_urls={
            name: _check_address(variable, environment.text(variable, f"http://{name}"), "http://", "https://")
            for name, variable in ((name, f"STOCKADE_{name.upper().replace('-', '_')}_URL") for name in services)
        },
        access_token_lifetime_s=environment.whole("STOCKADE_ACCESS_TOKEN_LIFETIME_S", 300, low=30, high=3_600),
        refresh_token_lifetime_s=environment.whole(
            "STOCKADE_REFRESH_TOKEN_LIFETIME_S", 30 * 86_400, low=600, high=365 * 86_400
        ),
        body_limit_bytes=environment.whole("STOCKADE_BODY_LIMIT_BYTES", 1_048_576, low=1_024, high=64 * 1_048_576),
        request_deadline_s=environment.number("STOCKADE_REQUEST_DEADLINE_S", 30.0, low=1, high=600),
        drain_delay_s=environment.number("STOCKADE_DRAIN_DELAY_S", 0.5, low=0, high=120),
        drain_limit_s=environment.number("STOCKADE_DRAIN_LIMIT_S", 25.0, low=1, high=600),
    )
