"""Two migrated shards a test, and accounts in bulk.

`shard_dsns` is the two databases by name, `shards` the directory over pools to them.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from mesh.postgres import Pool, acquired, open_pool
from svc_message.identity.bulk import BulkAccount, bulk_register
from svc_message.migrating import migrate
from svc_message.shards.directory import Shards
from whimbrel_cli.stack.postgres import ensure_database

SHARD_NAMES = ("shard-0", "shard-1")

_PATIENCE = timedelta(seconds=10)


class AskedPool(Pool):
    """A pool that a test may ask directly, a connection for each statement."""

    def acquire(self):
        return acquired(self, within=_PATIENCE)

    async def execute(self, *query):
        async with self.acquire() as connection:
            return await connection.execute(*query)

    async def fetch(self, *query):
        async with self.acquire() as connection:
            return await connection.fetch(*query)

    async def fetchrow(self, *query):
        async with self.acquire() as connection:
            return await connection.fetchrow(*query)

    async def fetchval(self, *query):
        async with self.acquire() as connection:
            return await connection.fetchval(*query)


BulkAccounts = Callable[[int], Awaitable[list[BulkAccount]]]


@pytest.fixture(scope="session")
def shard_templates(stack) -> dict[str, str]:
    """Databases to copy the shards from: the names of the templates, migrated once a run."""
    directory, _, _ = os.environ["WHIMBREL_TEST_RUN"].rpartition(":")
    templates = {name: f"template_{name.replace('-', '_')}" for name in SHARD_NAMES}
    with (Path(directory) / "shard-templates").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        asyncio.run(_make_templates(stack.postgres_dsn, templates))
    return templates


@pytest.fixture
async def shard_dsns(database, shard_templates) -> dict[str, str]:
    """Two migrated databases, by the name of the shard."""
    return {name: await database(template=shard_templates[name]) for name in SHARD_NAMES}


@pytest.fixture
def session_variables() -> dict[str, str]:
    """What every session to the shards has set."""
    return {}


@pytest.fixture
async def shards(shard_dsns, session_variables) -> AsyncIterator[Shards]:
    """The directory of two migrated shards; it has read the maps."""
    async with AsyncExitStack() as stack:
        pools = {}
        for name, dsn in shard_dsns.items():
            pool = await stack.enter_async_context(
                open_pool(dsn, size=8, application_name="test", variables=session_variables)
            )
            pools[name] = AskedPool(pool._pool)
            stack.push_async_callback(pools[name].close)
        directory = Shards(pools)
        await directory.read_maps()
        yield directory


@pytest.fixture
def bulk_accounts(shards) -> BulkAccounts:
    """`accounts = await bulk_accounts(10)`: that many accounts, each with one linked device."""

    async def make(count: int) -> list[BulkAccount]:
        return await bulk_register(shards, count)

    return make


async def _make_templates(server: str, templates: dict[str, str]) -> None:
    # Migrating a migrated one changes nothing, so it does not matter which worker was first.
    await migrate({name: await ensure_database(server, db) for name, db in templates.items()})
