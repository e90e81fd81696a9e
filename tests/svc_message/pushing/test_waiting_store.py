"""What a shard says of the queues that are not empty."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.ids import random_id, slot_of
from svc_message.identity.bulk import BulkAccount
from svc_message.model import URGENT
from svc_message.pushing.store import FIRST, Span, Unread, WaitingStore

_PUT = """
INSERT INTO device_queue (user_id, device_id, pos, seq, sent_prev, accepted_at, sender_device_id,
    type, conversation_id, peer_id, sender_id, message_id, ciphertext)
VALUES ($1, 1, $2, $2, 0, clock_timestamp(), 1, $3, $4, $4, $4, $4, 'x')
"""
_HEAD = "UPDATE device SET head_pos = greatest(head_pos, $2) WHERE user_id = $1"


@pytest.fixture
async def people(bulk_accounts, shards) -> list[BulkAccount]:
    """Three people of the first shard."""
    accounts = await bulk_accounts(24)
    here = [one for one in accounts if shards.shard_of(slot_of(one.user_id)) == shards.names[0]]
    return here[:3]


@pytest.fixture
def pool(shards):
    return shards.pool(shards.names[0])


@pytest.fixture
def store(pool) -> WaitingStore:
    return WaitingStore(pool)


async def put(pool, person, pos, kind=1, conversation=b"c" * 16) -> None:
    await pool.execute(_PUT, person.user_id, pos, kind, conversation)
    await pool.execute(_HEAD, person.user_id, pos)


async def test_unread_queues_are_found_by_parts_and_for_given_devices(store, pool, people):
    one, other, empty = people
    await put(pool, one, 1)
    await put(pool, other, 1)
    await put(pool, other, 2)
    await pool.execute(
        "UPDATE device SET epoch = 7, acked_pos = 1 WHERE user_id = $1", other.user_id
    )

    found, last = [], FIRST
    while last is not None:
        part, last = await store.unread_after(last, 2)
        found += part
    asked = await store.unread([(one.user_id, 1) for one in people])

    expected = {Unread((one.user_id, 1), 0, 1, 0), Unread((other.user_id, 1), 7, 2, 1)}
    assert set(found) == set(asked) == expected
    assert len(found) == 2
    assert (empty.user_id, 1) not in {each.device for each in found}


async def test_an_unlinked_device_waits_for_nothing(store, pool, people):
    await put(pool, people[0], 1)
    await pool.execute("UPDATE device SET linked = false WHERE user_id = $1", people[0].user_id)

    found, last = [], FIRST
    while last is not None:
        part, last = await store.unread_after(last, 100)
        found += part

    assert found == await store.unread([(people[0].user_id, 1)]) == []


async def test_what_is_muted_is_not_heard_until_then_and_only_the_part_counts(store, pool, people):
    muted, spoken = random_id(), random_id()
    one = people[0]
    until = datetime.now(UTC) + timedelta(hours=1)
    await pool.execute("INSERT INTO mute VALUES ($1, $2, $3)", one.user_id, muted, until)
    await put(pool, one, 1, 1 | URGENT, muted)
    await put(pool, one, 2, 1, spoken)
    await put(pool, one, 3, 2 | URGENT, spoken)
    device = (one.user_id, 1)

    async def heard(after, to):
        return (await store.audible([Span(device, after, to)]))[device]

    assert await heard(0, 1) == (False, False)
    assert await heard(0, 2) == (True, False)
    assert await heard(0, 3) == (True, True)
    assert await heard(3, 3) == (False, False)
    past = datetime.now(UTC) - timedelta(hours=1)
    await pool.execute("UPDATE mute SET until = $2 WHERE user_id = $1", one.user_id, past)
    assert await heard(0, 1) == (True, True)
