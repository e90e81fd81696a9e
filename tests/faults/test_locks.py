"""Locks are taken by class, each in key order: busy workers wait, but never in a ring."""

import asyncio
import random
from datetime import UTC, datetime

import asyncpg

from mesh.ids import slot_of
from svc_message.requests import AckRequest
from svc_message.sending import read_send
from svc_message.store import ShardStore
from tests.e2e.device import a_send

# The shards of svc_message's own tests: two databases, migrated, and accounts in bulk.
from tests.svc_message.conftest import (  # noqa: F401
    bulk_accounts,
    session_variables,
    shard_dsns,
    shard_templates,
    shards,
)

USERS = 100
WORKERS = 4
BATCHES = 60
BATCH = 32

HEADS = "SELECT user_id, head_pos FROM device WHERE user_id = ANY ($1)"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


async def test_four_accept_and_four_ack_workers_over_a_hundred_users_never_deadlock(
    shards,  # noqa: F811
    bulk_accounts,  # noqa: F811
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    (shard, *_) = shards.names
    accounts = await bulk_accounts(3 * USERS)
    users = [a.user_id for a in accounts if shards.shard_of(slot_of(a.user_id)) == shard][:USERS]
    pool = shards.pool(shard)
    store = ShardStore(shard, pool)
    deadlocks = []

    async def insist(call, batch):
        """As a lane does: whatever may succeed when repeated is repeated."""
        while True:
            try:
                return await call(batch)
            except asyncpg.DeadlockDetectedError as error:
                deadlocks.append(error)
            except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
                continue

    async def accept_all() -> None:
        for _ in range(BATCHES):
            results = await insist(store.accept, [a_request(chance, users) for _ in range(BATCH)])
            assert {result.outcome for result in results} == {1}

    async def ack_all() -> None:
        for _ in range(BATCHES):
            heads = await pool.fetch(HEADS, chance.sample(users, BATCH))
            chance.shuffle(heads)
            await insist(store.ack, [an_ack(row["user_id"], row["head_pos"]) for row in heads])

    assert len(users) == USERS
    async with asyncio.TaskGroup() as workers:
        for _ in range(WORKERS):
            workers.create_task(accept_all())
            workers.create_task(ack_all())

    assert deadlocks == []
    assert await pool.fetchval(DEADLOCKS) == 0


def a_request(chance, users):
    sender, recipient = chance.sample(users, 2)
    request = read_send(a_send(recipient), sender, 1, datetime.now(UTC), None)
    request.recipient_known = True
    return request


def an_ack(user_id, up_to_pos):
    return AckRequest(
        slot=slot_of(user_id),
        done=lambda _request, _result: None,
        user_id=user_id,
        device_id=1,
        up_to_pos=up_to_pos,
    )
