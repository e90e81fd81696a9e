"""The slot table is the truth: a frozen slot takes no write, callers wait, then follow it."""

import asyncio

import pytest

from mesh.ids import slot_of
from svc_message.conversations import direct_conversation


async def freeze(pool, slot, wait="2s"):
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{wait}'")
        await connection.execute("LOCK TABLE slot IN ACCESS EXCLUSIVE MODE")
        await connection.execute("UPDATE slot SET state = 2 WHERE slot = $1", slot)


async def set_state(pool, slot, state):
    await pool.execute("UPDATE slot SET state = $2 WHERE slot = $1", slot, state)


async def test_sends_to_a_frozen_slot_wait_in_order_and_go_on(core, shards, people):
    sender, recipient = people[:2]
    _, slot = direct_conversation(sender, recipient)
    pool = shards.pool(shards.shard_of(slot))
    await core.send(sender, recipient, b"0")
    await freeze(pool, slot)

    sends = [asyncio.create_task(core.send(sender, recipient, b"%d" % n)) for n in range(1, 101)]
    other, _ = await core.send(people[2], people[3])
    assert not any(send.done() for send in sends)
    assert other.seq == 1
    await set_state(pool, slot, 1)
    answers = await asyncio.gather(*sends)

    assert [first.seq for first, _ in answers] == list(range(2, 102))


async def test_a_send_to_a_slot_frozen_for_too_long_is_refused_retriably(core, shards, people):
    _, slot = direct_conversation(*people[:2])
    await freeze(shards.pool(shards.shard_of(slot)), slot)

    _, refusal = await core.send(*people[:2])

    assert refusal.reason == "SLOT_MOVING"
    assert refusal.retry_after is not None


async def test_a_freeze_waits_for_a_write_that_has_read_the_slot(core, shards, people):
    sender, recipient = people[:2]
    conversation_id, slot = direct_conversation(sender, recipient)
    pool = shards.pool(shards.shard_of(slot))
    await core.send(sender, recipient)

    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(
            "SELECT FROM conversation WHERE conversation_id = $1 FOR UPDATE", conversation_id
        )
        sending = asyncio.create_task(core.send(sender, recipient))
        while not await pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        ):
            await asyncio.sleep(0)
        with pytest.raises(Exception, match="lock timeout"):
            await freeze(pool, slot, wait="50ms")
        await transaction.rollback()

    first, refusal = await sending
    assert refusal is None
    assert first.seq == 2


async def test_a_moved_slot_is_followed_without_being_told(core, shards, people):
    pair = next(
        (a, b)
        for a in people
        for b in people
        if a != b and shards.shard_of(direct_conversation(a, b)[1]) == "shard-0"
    )
    _, slot = direct_conversation(*pair)
    old, new = shards.pool("shard-0"), shards.pool("shard-1")
    await new.execute(
        "UPDATE slot SET state = 1, moved_to = NULL, version = 2 WHERE slot = $1", slot
    )
    await old.execute(
        "UPDATE slot SET state = 4, moved_to = 'shard-1', version = 2 WHERE slot = $1", slot
    )
    # Nothing was there yet, but for the account whose slot it is.
    for user in pair:
        if slot_of(user) == slot:
            await copy_account(old, new, user)

    first, refusal = await core.send(*pair)

    assert refusal is None
    assert first.seq == 1
    assert core.core.shards.shard_of(slot) == "shard-1"
    assert await old.fetchval("SELECT count(*) FROM conversation WHERE slot = $1", slot) == 0


async def copy_account(old, new, user):
    for table in ("account", "device", "receipt_counter"):
        row = await old.fetchrow(f"SELECT * FROM {table} WHERE user_id = $1", user)
        places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await new.execute(f"INSERT INTO {table} VALUES ({places})", *row)
