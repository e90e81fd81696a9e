"""The prev test: whoever writes copies, in whatever order and however often, queues are ordered."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.ids import random_id, slot_of
from svc_message.conversations import direct_conversation
from svc_message.model import Outcome
from svc_message.requests import EVERY_DEVICE, AckRequest, Body, Copy
from svc_message.store import ShardStore

SHARED = Body(EVERY_DEVICE, 0, 1, b"for all")


def a_copy(sender, recipient, *, prev, seq, bodies=(SHARED,)):
    conversation_id, _ = direct_conversation(sender, recipient)
    return Copy(
        slot=slot_of(recipient),
        user_id=recipient,
        conversation_id=conversation_id,
        prev=prev,
        seq=seq,
        sent_prev=prev,
        accepted_at=datetime.now(UTC),
        peer_id=sender,
        sender_id=sender,
        sender_device_id=1,
        message_id=random_id(),
        bodies=[*bodies],
    )


@pytest.fixture
def store_of(shards):
    def store(user):
        shard = shards.shard_of(slot_of(user))
        return ShardStore(shard, shards.pool(shard))

    return store


async def queue_of(shards, user, device=1):
    pool = shards.pool(shards.shard_of(slot_of(user)))
    return await pool.fetch(
        "SELECT pos, seq, conversation_id, ciphertext FROM device_queue"
        " WHERE user_id = $1 AND device_id = $2 ORDER BY pos",
        user,
        device,
    )


async def test_a_copy_waits_for_its_predecessor_and_is_written_once(shards, people, store_of):
    sender, recipient = people[:2]
    store = store_of(recipient)
    first, second = (
        a_copy(sender, recipient, prev=0, seq=1),
        a_copy(sender, recipient, prev=1, seq=2),
    )

    outcomes = [
        (await store.copy([copy]))[0].outcome for copy in (second, first, second, first, second)
    ]

    assert outcomes == [
        Outcome.NOT_YET,
        Outcome.DONE,
        Outcome.DONE,
        Outcome.WRITTEN_BEFORE,
        Outcome.WRITTEN_BEFORE,
    ]
    assert [(row["pos"], row["seq"]) for row in await queue_of(shards, recipient)] == [
        (1, 1),
        (2, 2),
    ]


async def test_a_copy_is_not_written_again_after_it_was_acked_and_deleted(shards, people, store_of):
    sender, recipient = people[:2]
    store = store_of(recipient)
    copy = a_copy(sender, recipient, prev=0, seq=1)
    await store.copy([copy])
    ack = AckRequest(
        slot=slot_of(recipient), done=lambda *_: None, user_id=recipient, device_id=1, up_to_pos=1
    )
    await store.ack([ack])

    [again] = await store.copy([copy])

    assert again.outcome == Outcome.WRITTEN_BEFORE
    assert await queue_of(shards, recipient) == []


async def test_a_copy_for_an_account_that_does_not_exist_is_gone(people, store_of):
    nobody = random_id()

    [result] = await store_of(nobody).copy([a_copy(people[0], nobody, prev=0, seq=1)])

    assert result.outcome == Outcome.GONE


async def test_a_blocked_senders_copies_count_as_written_between_those_of_others(
    shards, people, store_of
):
    blocked, other, recipient = people[:3]
    pool = shards.pool(shards.shard_of(slot_of(recipient)))
    await pool.execute("INSERT INTO block VALUES ($1, $2)", recipient, blocked)
    copies = [
        a_copy(sender, recipient, prev=seq - 1, seq=seq)
        for sender in (blocked, other)
        for seq in (1, 2)
    ]

    results = await store_of(recipient).copy(copies)

    assert [result.outcome for result in results] == [Outcome.DONE] * 4
    queue = await queue_of(shards, recipient)
    conversation_id, _ = direct_conversation(other, recipient)
    assert [(row["pos"], row["seq"]) for row in queue] == [(1, 1), (2, 2)]
    assert {row["conversation_id"] for row in queue} == {conversation_id}
    await pool.execute("DELETE FROM block WHERE user_id = $1", recipient)
    [after] = await store_of(recipient).copy([a_copy(blocked, recipient, prev=2, seq=3)])
    assert [place.pos for place in after.places] == [3]


async def test_a_full_queue_takes_no_direct_copy_until_it_is_acked(shards, people, store_of):
    sender, recipient = people[:2]
    pool = shards.pool(shards.shard_of(slot_of(recipient)))
    await pool.execute("UPDATE device SET head_pos = 100000 WHERE user_id = $1", recipient)
    store, copy = store_of(recipient), a_copy(sender, recipient, prev=0, seq=1)

    [full] = await store.copy([copy])
    await pool.execute("UPDATE device SET acked_pos = 1 WHERE user_id = $1", recipient)
    [fits] = await store.copy([copy])

    assert full.outcome == Outcome.QUEUE_FULL
    assert (fits.outcome, fits.places[0].pos) == (Outcome.DONE, 100001)

    next_copy = a_copy(sender, recipient, prev=1, seq=2)
    [full] = await store.copy([next_copy])
    await pool.execute("UPDATE device SET acked_pos = 2 WHERE user_id = $1", recipient)
    [fits] = await store.copy([next_copy])

    assert full.outcome == Outcome.QUEUE_FULL
    assert (fits.outcome, fits.places[0].pos) == (Outcome.DONE, 100002)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_carrying_of_the_same_copies_gives_one_ordered_queue(
    shards, store_of, bulk_accounts, data
):
    senders = [account.user_id for account in await bulk_accounts(3)]
    [recipient] = [account.user_id for account in await bulk_accounts(1)]
    store = store_of(recipient)
    pool = shards.pool(shards.shard_of(slot_of(recipient)))
    await pool.execute("UPDATE device SET registration_id = 1 WHERE user_id = $1", recipient)
    await pool.execute(
        "INSERT INTO device (user_id, device_id, registration_id, public_key)"
        " VALUES ($1, 2, 2, '')",
        recipient,
    )
    each = [Body(device, device, 1, b"for %d" % device) for device in (1, 2)]
    copies = [
        a_copy(sender, recipient, prev=seq - 1, seq=seq, bodies=each if seq in kinds else [SHARED])
        for sender, kinds in zip(senders, ((), (2, 3), (1, 2, 3, 4)), strict=True)
        for seq in range(1, 5)
    ]
    batches = data.draw(
        st.lists(st.lists(st.sampled_from(copies), min_size=1, max_size=6), min_size=1, max_size=12)
    )

    await asyncio.gather(*(store.copy(batch) for batch in batches))
    for _ in range(4):
        await store.copy(copies)

    for device in (1, 2):
        queue = await queue_of(shards, recipient, device)
        assert [row["pos"] for row in queue] == list(range(1, len(copies) + 1))
        for sender, own in zip(senders, (0, 2, 4), strict=True):
            conversation_id, _ = direct_conversation(sender, recipient)
            rows = [row for row in queue if row["conversation_id"] == conversation_id]
            assert [row["seq"] for row in rows] == [1, 2, 3, 4]
            assert sum(row["ciphertext"] == b"for %d" % device for row in rows) == own
