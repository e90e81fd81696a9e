"""A pool of Postgres connections that outlives the server's crashes, and what its errors mean."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import Pool, PoolConnectionProxy

from mesh.errors import Unavailable

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
    "Limits",
    "Pool",
    "acquired",
    "is_transient",
    "open_pool",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a connection's owner may keep others waiting."""

    statement: timedelta = timedelta(seconds=2)
    lock: timedelta = timedelta(milliseconds=500)
    idle_in_transaction: timedelta = timedelta(seconds=5)
    connect: timedelta = timedelta(seconds=2)


USUAL = Limits()


@contextlib.asynccontextmanager
async def open_pool(
    dsn: str,
    *,
    size: int,
    application_name: str,
    limits: Limits = USUAL,
) -> AsyncIterator[Pool]:
    """A pool of at most `size` connections, none made before it is needed.

    The server need not be there yet. A connection that broke is replaced by the next acquire.
    """
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        # No connection is dropped for its age: its prepared statements are its worth.
        max_queries=10_000_000,
        max_inactive_connection_lifetime=0,
        reset=_keep_session,
        timeout=limits.connect.total_seconds(),
        # The server ends a statement first; this ends the wait for a server that is gone.
        command_timeout=limits.statement.total_seconds() + 1,
        server_settings=_server_settings(application_name, limits),
    )
    async with pool:
        try:
            yield pool
        finally:
            await _close(pool)


@contextlib.asynccontextmanager
async def acquired(pool: Pool, *, within: timedelta) -> AsyncIterator[Connection]:
    """A connection of the pool; Unavailable if there is none in time or the server is away."""
    try:
        connection = await pool.acquire(timeout=within.total_seconds())
    except STORE_ERRORS as error:
        if not is_transient(error):
            raise
        raise Unavailable("the store cannot be reached") from error
    try:
        yield connection
    except asyncpg.InternalClientError:
        connection.terminate()  # nobody knows what it would answer next
        raise
    finally:
        await pool.release(connection)


def is_transient(error: BaseException) -> bool:
    """Whether the same statements may succeed when repeated; their outcome is unknown."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _TRANSIENT_CLASSES
    if isinstance(error, asyncpg.InterfaceError):
        return any(word in str(error) for word in _GONE)
    # asyncpg loses its thread when the server dies between two of its messages: not our bug.
    return isinstance(error, OSError | asyncpg.InternalClientError)


def _server_settings(application_name: str, limits: Limits) -> dict[str, str]:
    return {
        "application_name": application_name,
        "statement_timeout": _milliseconds(limits.statement),
        "lock_timeout": _milliseconds(limits.lock),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle_in_transaction),
        # A custom plan is made anew for each batch, and the planner changes its mind at night.
        "plan_cache_mode": "force_generic_plan",
        "jit": "off",
    }


async def _keep_session(_connection: Any) -> None:
    # asyncpg has rolled back what was open; its default would also pay a round trip for RESET ALL,
    # and nothing here sets session variables or takes session locks.
    return None


async def _close(pool: Pool) -> None:
    try:
        await pool.close()
    except TimeoutError:
        pool.terminate()


def _milliseconds(span: timedelta) -> str:
    return str(int(span.total_seconds() * 1000))
