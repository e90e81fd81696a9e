"""A pool of Postgres connections that outlives the server's crashes, and what its errors mean."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr, field_validator

from mesh import sessions
from mesh.errors import Unavailable
from mesh.sessions import Limits
from mesh.settings import Settings
from mesh.store_tls import PLAINTEXT, StoreTls, demand_good, dsn_problems, dsn_with

log = structlog.get_logger(__name__)

# Classes of SQLSTATE after which the same batch may be tried again: the connection (08), a
# rollback such as a deadlock (40), resources (53), a lock or a shutdown (55, 57), the system (58).
_TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58"})

# A connection that died under its owner; asyncpg tells it by the text only.
_GONE = ("closed", "closing", "released back to the pool")

Connection: TypeAlias = PoolConnectionProxy

# What a call of a store may raise when the store, or the way to it, is to blame.
STORE_ERRORS = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    Unavailable,
)
# Those of them by which a server that is well says that the rows are busy.
ROWS_BUSY = (
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)

__all__ = [
    "ROWS_BUSY",
    "STORE_ERRORS",
    "USUAL",
    "Connection",
    "DatabaseSettings",
    "Limits",
    "Pool",
    "acquired",
    "fetch",
    "is_transient",
    "open_pool",
    "server_time",
]


class DatabaseSettings(Settings):
    """The knobs of a service that has one database."""

    database: SecretStr
    """DSN of the service's own database."""
    direct_database: SecretStr | None = None
    """DSN of the same without a pooler, where `database` is PgBouncer's: for `prepare`."""
    postgres_tls: StoreTls = PLAINTEXT
    """TLS with it where the DSN has no sslmode; as sslmode=verify-full."""

    @field_validator("database", "direct_database")
    @classmethod
    def _dsn_is_good(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn and (problems := dsn_problems(dsn.get_secret_value())):
            raise ValueError("; ".join(problems))
        return dsn

    _postgres_tls_is_good = field_validator("postgres_tls")(demand_good)

    @property
    def dsn(self) -> str:
        """Where the database is, through a pooler if there is one."""
        return dsn_with(self.postgres_tls, self.database.get_secret_value())

    @property
    def own_dsn(self) -> str:
        """Where the database itself is."""
        own = self.direct_database or self.database
        return dsn_with(self.postgres_tls, own.get_secret_value())


USUAL = Limits()
# How long `fetch` waits for a connection.
_WITHIN = timedelta(seconds=1)


class Pool:
    """Connections to one server. `acquired` lends them.

    What was given back without trouble is kept at hand, the last one first: asyncpg's own pool
    starts two tasks for each lending, which cost as much as a small statement.
    """

    def __init__(self, pool: asyncpg.pool.Pool) -> None:
        self._pool = pool
        self._kept: list[Connection] = []
        self._waiting = 0
        self._told = ""

    async def take(self, within: timedelta) -> Connection:
        """A connection that is open as far as is known."""
        while self._kept:
            connection = self._kept.pop()
            if _is_clean(connection):
                return connection
            await self._pool.release(connection)
        self._waiting += 1
        try:
            connection = await self._pool.acquire(timeout=within.total_seconds())
        finally:
            self._waiting -= 1
        self._told = ""
        return connection

    async def give_back(self, connection: Connection, *, is_well: bool) -> None:
        """End the lending; a connection that may be in trouble is looked at by asyncpg's pool."""
        if is_well and not self._waiting and _is_clean(connection):
            self._kept.append(connection)
        else:
            await self._pool.release(connection)

    def tell_of_tls(self, error: BaseException) -> None:
        """Log it if TLS is to blame, once: callers hear only that the store is away."""
        # asyncpg has a bare ConnectionError for a server that has no TLS.
        why = (
            str(error) if isinstance(error, ssl.SSLError) or type(error) is ConnectionError else ""
        )
        if why and why != self._told:
            log.warning("no TLS with Postgres", why=why)
            self._told = why

    async def close(self) -> None:
        """Close all connections, also those in use after a while."""
        while self._kept:
            await self._pool.release(self._kept.pop())
        try:
            await self._pool.close()
        except TimeoutError:
            self._pool.terminate()


@contextlib.asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    size: int,
    application_name: str,
    limits: Limits = USUAL,
    variables: Mapping[str, str] | None = None,
    is_pooled: bool = False,
) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections, none made before it is needed.

    The server need not be there yet. A connection that broke is replaced by the next acquire.
    `variables` are what each session is to have set, by name. With `is_pooled` a pooler such as
    PgBouncer stands before the server, which lets no session be set: then the role must have been
    given it all (`mesh.sessions.give_role`); a connection that lacks some is not used.
    """
    wanted = {**sessions.usual(limits), **(variables or {})}
    named = {"application_name": application_name}

    async def check(connection: Any) -> None:
        if is_pooled and (lacking := await sessions.lacking(connection, wanted)):
            raise Unavailable(f"sessions behind the pooler lack {', '.join(lacking)}")

    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        # No connection is dropped for its age: its prepared statements are its worth.
        max_queries=10_000_000,
        max_inactive_connection_lifetime=0,
        init=check,
        reset=_keep_session,
        timeout=limits.connect.total_seconds(),
        # The server ends a statement first; this ends the wait for a server that is gone.
        command_timeout=limits.statement.total_seconds() + 1,
        server_settings=named if is_pooled else named | wanted,
    )
    async with pool:
        lending = Pool(pool)
        try:
            yield lending
        finally:
            await lending.close()


@contextlib.asynccontextmanager
async def acquired(pool: Pool, *, within: timedelta) -> AsyncIterator[Connection]:
    """A connection of the pool; Unavailable if there is none in time or the server is away."""
    try:
        connection = await pool.take(within)
    except STORE_ERRORS as error:
        if not is_transient(error):
            raise
        pool.tell_of_tls(error)
        raise Unavailable("the store cannot be reached") from error
    is_well = False
    try:
        yield connection
        is_well = True
    except asyncpg.InternalClientError:
        connection.terminate()  # nobody knows what it would answer next
        raise
    finally:
        await pool.give_back(connection, is_well=is_well)


async def fetch(pool: Pool, statement: str, *arguments: object) -> list[Any]:
    """The rows of one statement. Raises STORE_ERRORS; Unavailable as `acquired` does."""
    async with acquired(pool, within=_WITHIN) as connection:
        rows: list[Any] = await connection.fetch(statement, *arguments)
    return rows


async def server_time(pool: Pool) -> datetime:
    """The server's clock, by which what it keeps is measured. Raises as `fetch` does."""
    [row] = await fetch(pool, "SELECT clock_timestamp() AS now")
    now: datetime = row["now"]
    return now


def _is_clean(connection: Connection) -> bool:
    """Whether it is open and in no transaction."""
    try:
        return not (connection.is_closed() or connection.is_in_transaction())
    except asyncpg.InterfaceError:  # it broke, and asyncpg's pool has taken it back
        return False


def is_transient(error: BaseException) -> bool:
    """Whether the same statements may succeed when repeated; their outcome is unknown."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _TRANSIENT_CLASSES
    if isinstance(error, asyncpg.InterfaceError):
        return any(word in str(error) for word in _GONE)
    # asyncpg loses its thread when the server dies between two of its messages: not our bug.
    return isinstance(error, OSError | asyncpg.InternalClientError)


async def _keep_session(_connection: Any) -> None:
    # asyncpg has rolled back what was open; its default would also pay a round trip for RESET ALL,
    # and nothing here sets session variables or takes session locks.
    return None
