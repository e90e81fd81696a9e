"""The outbox: what one shard owes another is carried in the end, by whoever finds it."""

import asyncio
from datetime import timedelta

import pytest

from mesh.ids import slot_of
from svc_message.conversations import direct_conversation
from svc_message.store import ShardStore


@pytest.fixture
def crossing(shards, people):
    """A sender and a recipient whose conversation does not live on the recipient's shard."""
    return next(
        (a, b)
        for a in people
        for b in people
        if shards.shard_of(direct_conversation(a, b)[1]) != shards.shard_of(slot_of(b))
    )


def home_of(shards, pair):
    return shards.shard_of(direct_conversation(*pair)[1])


async def entries(shards, name):
    return await shards.pool(name).fetchval("SELECT count(*) FROM copy_outbox")


async def test_an_entry_goes_when_its_copy_is_written(core, shards, crossing):
    await core.send(*crossing)
    await core.core.drained()

    assert len(await core.page(crossing[1])) == 1
    assert await entries(shards, home_of(shards, crossing)) == 0


async def test_an_entry_that_nobody_carries_is_taken_when_it_is_overdue(core, shards, crossing):
    core.core.relay.carry_copy = lambda copy: None
    await core.send(*crossing)
    assert await core.page(crossing[1]) == []
    del core.core.relay.carry_copy

    await shards.pool(home_of(shards, crossing)).execute("UPDATE copy_outbox SET due = now()")

    async with asyncio.timeout(10):
        while not await core.page(crossing[1]):
            await asyncio.sleep(0)
        while await entries(shards, home_of(shards, crossing)):
            await asyncio.sleep(0)


async def test_an_entry_under_a_lease_is_taken_by_nobody_else(core, shards, crossing):
    home = home_of(shards, crossing)
    store = ShardStore(home, shards.pool(home))
    core.core.relay.carry_copy = lambda copy: None
    await core.send(*crossing)
    await shards.pool(home).execute("UPDATE copy_outbox SET due = now() - interval '1 second'")

    takers = await asyncio.gather(
        *(store.outbox.take_copies(10, timedelta(seconds=30), []) for _ in range(4))
    )

    assert sum(len(taken) for taken in takers) <= 1


async def test_entries_of_a_conversation_are_written_in_order_from_the_lowest(
    core, shards, crossing
):
    home = home_of(shards, crossing)
    core.core.relay.carry_copy = lambda copy: None
    for n in range(20):
        await core.send(*crossing, b"%d" % n)
    del core.core.relay.carry_copy
    # The lowest come due last.
    await shards.pool(home).execute(
        "UPDATE copy_outbox SET due = now() + make_interval(secs => (20 - seq) * 0.02)"
    )

    async with asyncio.timeout(20):
        while await entries(shards, home):
            await asyncio.sleep(0)

    assert [int(row["ciphertext"]) for row in await core.page(crossing[1])] == list(range(20))


async def test_a_full_queue_holds_its_conversation_back_and_nothing_is_lost(core, shards, crossing):
    sender, recipient = crossing
    pool = shards.pool(shards.shard_of(slot_of(recipient)))
    await pool.execute("UPDATE device SET head_pos = 100000 WHERE user_id = $1", recipient)
    await core.send(sender, recipient)

    async with asyncio.timeout(10):
        refusal = None
        while refusal is None or refusal.reason != "RECIPIENT_FULL":
            _, refusal = await core.send(sender, recipient)

    assert refusal.retry_after is not None
    await pool.execute("UPDATE device SET acked_pos = head_pos WHERE user_id = $1", recipient)
    home = home_of(shards, crossing)
    await shards.pool(home).execute("UPDATE copy_outbox SET due = now()")
    async with asyncio.timeout(10):
        while await entries(shards, home):
            await asyncio.sleep(0)
    rows = await core.page(recipient, after=100000)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
