"""PostgreSQL for one service: a pool with the service's own role and schema, and named transactions.

A verb is an async function that takes a connection first: `async def reserve(connection, *, lines, …)`. Nobody but
`Database.run` begins or commits, so verbs compose; the transaction's name in metrics and logs is the verb's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from stockade.kit.errors import Invalid, Unavailable
from stockade.kit.logs import get_logger
from stockade.kit.metrics import POOL_CONNECTIONS, TRANSACTION_RETRIES, TRANSACTION_SECONDS
from stockade.kit.settings import DatabaseAccess

P = ParamSpec("P")
T = TypeVar("T")

Row: TypeAlias = "asyncpg.Record"
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
Verb: TypeAlias = "Callable[Concatenate[Connection, P], Awaitable[T]]"

_ATTEMPTS_MAX = 6
_CONNECT_TIMEOUT_S = 4.0  # Shorter than what follows, so that a silent server is not taken for a busy pool.
_ACQUIRE_TIMEOUT_S = 5.0
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg raises for a query on a connection whose end it has read but not yet acted upon.
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InvalidCatalogNameError,
    OSError,
)


class RetryTransaction(Exception):
    """Raised inside a verb to roll back and run it again, as after a lost race that the next attempt will see."""


class _Connection(asyncpg.Connection):
    """No session state is ever set on these connections, so giving one back needs no reset round trip."""

    def get_reset_query(self) -> str:
        return ""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the name is asyncpg's
        try:
            await super().close(timeout=timeout)
        except OSError:  # The server is gone, so there is nobody to say goodbye to.
            self.terminate()


class Database:
    """The pool of one service."""

    def __init__(self, *, service: str, schema: str, access: DatabaseAccess, pool_size: int) -> None:
        self.service = service
        self.schema = schema
        self._access = access
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._seen = access.current()
        self._log = get_logger(service)

    async def open(self) -> None:
        """Make the pool. It connects when first used, so a service starts while its database is still away."""
        self._pool = await asyncpg.create_pool(
            min_size=0,
            max_size=self._pool_size,
            connect=self._connect,
            connection_class=_Connection,
            max_inactive_connection_lifetime=60,
        )

    async def close(self) -> None:
        """Wait for what is running (bounded), then close every connection."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), timeout=5)
            except TimeoutError:
                self._pool.terminate()

    async def run(self, verb: Verb[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a verb in one transaction (read committed), named after it.

        Serialization failures and deadlocks roll back and run again, a bounded number of times, so a verb must not have
        effects outside its connection. Raises Unavailable when the database is away, busy beyond its bounds, or was lost
        before the commit was acknowledged: the same request with the same Idempotency-Key is then safe to send again.
        """
        name = f"{verb.__module__.rpartition('.')[2]}.{verb.__name__}"
        began = time.perf_counter()
        try:
            for attempt in range(1, _ATTEMPTS_MAX + 1):
                try:
                    return await self._attempt(True, verb, args, kwargs)
                except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, RetryTransaction) as error:
                    TRANSACTION_RETRIES.labels(self.service, name).inc()
                    self._log.info(
                        "transaction runs again", **{"event.action": name, "error.type": type(error).__name__}
                    )
                    await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
            raise Unavailable("Too many conflicting changes at once; try again.", code="conflicting_changes")
        finally:
            TRANSACTION_SECONDS.labels(self.service, name).observe(time.perf_counter() - began)

    async def read(self, verb: Verb[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a verb that only reads, each statement on its own snapshot, without the round trips of a transaction."""
        name = f"{verb.__module__.rpartition('.')[2]}.{verb.__name__}"
        with TRANSACTION_SECONDS.labels(self.service, name).time():
            try:
                return await self._attempt(False, verb, args, kwargs)
            except Unavailable as error:
                if error.code != "database_unavailable":
                    raise
                # A restarted server closes the connections of the pool; a read is safe to repeat on a new one.
                return await self._attempt(False, verb, args, kwargs)

    async def watch(self) -> None:
        """Renew the connections when the credentials changed, and publish the state of the pool. Called every few seconds."""
        assert self._pool is not None, "open first"
        now = self._access.current()
        if now != self._seen:
            self._seen = now
            await self._pool.expire_connections()
            self._log.info("database credentials changed", **{"event.action": "renew_connections"})
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        POOL_CONNECTIONS.labels(self.service, "used").set(size - idle)
        POOL_CONNECTIONS.labels(self.service, "idle").set(idle)

    async def _attempt(self, transaction: bool, verb: Any, args: Any, kwargs: Any) -> Any:
        assert self._pool is not None, "open first"
        try:
            async with self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
                if not transaction:
                    return await verb(connection, *args, **kwargs)
                async with connection.transaction():
                    return await verb(connection, *args, **kwargs)
        except (TimeoutError, asyncpg.TooManyConnectionsError, asyncpg.OutOfMemoryError) as error:
            raise Unavailable("Every database connection is busy; try again.", code="overloaded") from error
        except _LOST as error:  # After TimeoutError, which is an OSError, too.
            self._log.warning("database away", **{"error.type": type(error).__name__, "error.message": str(error)})
            with contextlib.suppress(asyncpg.InterfaceError):  # Which a pool raises that is being closed.
                await (
                    self._pool.expire_connections()
                )  # The others are lost as well, or will be; nobody is to try them all.
            raise Unavailable(
                "The database is not reachable; try again with the same Idempotency-Key.",
                code="database_unavailable",
                retry_after_s=2,
            ) from error
        except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
            raise Unavailable(
                "The database took too long; try again with the same Idempotency-Key.", code="database_timeout"
            ) from error
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            self._log.error("database refuses the credentials", **{"error.type": type(error).__name__})
            raise Unavailable(
                "The database refuses this service's credentials; an operator must look.", code="database_unavailable"
            ) from error
        except (asyncpg.DiskFullError, asyncpg.ReadOnlySQLTransactionError) as error:
            self._log.error(
                "database cannot write", **{"error.type": type(error).__name__, "error.message": str(error)}
            )
            raise Unavailable(
                "The database cannot write at present; an operator must look.",
                code="database_unavailable",
                retry_after_s=10,
            ) from error
        except asyncpg.DataError as error:
            raise Invalid(
                "A value cannot be stored: it is out of range or has a character that no text may have.",
                code="invalid_value",
            ) from error

    async def _connect(self, *_: Any, **options: Any) -> Any:
        url, user, password = self._access.current()
        try:
            kind = options.get("connection_class", _Connection)
            return await connect(
                url, user=user, password=password, application=self.service, schema=self.schema, connection_class=kind
            )
        except TimeoutError as error:
            raise ConnectionError("the database server does not answer") from error


async def connect(
    url: str,
    *,
    user: str | None,
    password: str | None,
    application: str,
    schema: str,
    connection_class: Any = _Connection,
) -> Any:
    """One connection whose search path is the schema, with the time-outs that every statement here has."""
    connection = await asyncpg.connect(
        url,
        user=user,
        password=password,
        timeout=_CONNECT_TIMEOUT_S,
        command_timeout=30,
        connection_class=connection_class,
        server_settings={
            "application_name": application,
            "search_path": f'"{schema}"',
            "statement_timeout": "15s",
            "lock_timeout": "5s",
            "idle_in_transaction_session_timeout": "30s",
            "TimeZone": "UTC",
            "jit": "off",
        },
    )
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    return connection
