"""Consumer groups of the Postgres queue: what they see, who reads, what is kept for them."""

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from mesh.ids import random_id
from mesh.telemetry import OFF
from svc_message.queue.event_store import EventStore
from svc_message.queue.keeping import Keeping
from svc_message.queue.model import ClaimLost
from svc_message.queue.outbox import EventLog
from tests.svc_message.queue.conftest import GROUP, LEASE, MOST, READER, read_all, read_safe

SHARD = "shard-0"
WRITE = "INSERT INTO domain_event (slot, kind, key_id, number) VALUES (7, 1, $1, $2)"
HOUR = timedelta(hours=1)


@pytest.fixture
def pool(shards):
    return shards.pool(SHARD)


@pytest.fixture
def store(events: EventLog) -> EventStore:
    return events.stores[SHARD]


async def write(pool, *numbers: int) -> None:
    for number in numbers:
        await pool.execute(WRITE, random_id(), number)


async def numbers(store: EventStore, group=GROUP, holder=READER, lease=LEASE) -> list[int] | None:
    """What the group reads next; None while it is another's."""
    read = await read_safe(store, group, holder, lease)
    return None if read is None else [event.number for event in read]


async def test_an_event_whose_transaction_ends_late_is_not_passed_over(pool, store):
    async with pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(WRITE, random_id(), 1)
        await write(pool, 2)

        for _ in range(3):
            before = await store.read(GROUP, READER, LEASE, MOST)
        await transaction.commit()

    assert before == []
    assert await numbers(store) == [1, 2]


async def test_what_is_rolled_back_holds_nobody_up(pool, store):
    async with pool.acquire() as lost:
        transaction = lost.transaction()
        await transaction.start()
        await lost.execute(WRITE, random_id(), 1)
        await write(pool, 2)
        await transaction.rollback()

    assert await numbers(store) == [2]


async def test_what_is_not_committed_comes_again_and_what_is_committed_does_not(pool, store):
    await write(pool, 1, 2, 3)
    first, second, _ = await read_safe(store)

    assert await numbers(store) == [1, 2, 3]
    await store.commit(GROUP, READER, second.entry_id)
    assert await numbers(store) == [3]
    await store.commit(GROUP, READER, first.entry_id)
    assert await numbers(store) == [3]


async def test_groups_do_not_take_from_each_other(pool, events, store):
    await write(pool, 1)
    await commit_all(events)

    assert await numbers(store) == []
    assert await numbers(store, group="another") == [1]


async def test_one_consumer_reads_until_its_lease_is_over_or_it_leaves(pool, store):
    await write(pool, 1)

    assert await numbers(store, holder="a", lease=timedelta(minutes=1)) == [1]
    assert await numbers(store, holder="b") is None
    await store.release(GROUP, "a")
    assert await numbers(store, holder="b", lease=timedelta(0)) == [1]
    assert await numbers(store, holder="c") == [1]


async def test_who_has_lost_the_lease_commits_nothing(pool, events, store):
    await write(pool, 1)
    [event] = await read_safe(store, holder="a", lease=timedelta(0))
    await numbers(store, holder="b")

    with pytest.raises(ClaimLost):
        await events.commit(GROUP, "a", {SHARD: event.entry_id})

    assert await numbers(store, holder="b") == [1]


async def test_a_rewound_group_gets_all_again_and_what_is_in_hand_is_not_committed(
    pool, events, store
):
    await write(pool, 1)
    await commit_all(events)
    await write(pool, 2)
    [event] = await read_safe(store)

    await store.rewind(GROUP)

    with pytest.raises(ClaimLost):
        await events.commit(GROUP, READER, {SHARD: event.entry_id})
    assert await numbers(store) == [1, 2]


async def test_more_than_exists_is_not_committed(pool, store):
    await numbers(store)
    await store.commit(GROUP, READER, 1_000_000)
    await write(pool, 1)

    assert await numbers(store) == [1]


async def test_what_all_groups_have_read_goes_after_its_time(pool, events, store):
    await write(pool, 1, 2)
    await numbers(store, group="slow")
    await commit_all(events)
    await store.commit("slow", READER, (await read_safe(store, group="slow"))[0].entry_id)

    await sweep(events, keep_done=HOUR)
    assert await kept(pool) == [1, 2]
    await sweep(events, keep_done=timedelta(0))
    assert await kept(pool) == [2]


@pytest.mark.parametrize(
    "bound", [{"keep": timedelta(0)}, {"most": 1}], ids=["too old", "too many"]
)
async def test_what_waits_beyond_a_bound_is_dropped_with_an_alarm(pool, events, store, bound):
    await write(pool, 1, 2)
    await numbers(store)
    await pool.execute("UPDATE event_group SET heard_at = now() + interval '1 minute'")

    alarms = await sweep(events, **bound)

    left = [2] if "most" in bound else []
    assert await kept(pool) == left
    assert alarms == [(SHARD, 2 - len(left))]


async def test_what_no_group_wants_is_dropped_in_time_without_one(pool, events):
    await write(pool, 1)
    assert await sweep(events, keep_done=timedelta(0)) == []
    assert await kept(pool) == [1]

    assert await sweep(events, keep=timedelta(0)) == []

    assert await kept(pool) == []


async def test_a_group_that_never_comes_back_is_forgotten(pool, events, store):
    await write(pool, 1)
    await numbers(store)

    await sweep(events, keep=timedelta(0))

    assert await pool.fetchval("SELECT count(*) FROM event_group") == 0


async def test_what_is_on_its_way_to_another_shard_stays(pool, events):
    await write(pool, 1)
    await pool.execute("UPDATE slot SET state = 2 WHERE slot = 7")

    await sweep(events, keep=timedelta(0))

    assert await kept(pool) == [1]


async def commit_all(events: EventLog) -> None:
    last = {SHARD: (await read_all(events))[-1].entry_id}
    await events.commit(GROUP, READER, last)


async def kept(pool) -> list[int]:
    rows = await pool.fetch("SELECT number FROM domain_event ORDER BY entry_id")
    return [row["number"] for row in rows]


async def sweep(events: EventLog, *, keep=HOUR, keep_done=HOUR, most=1000) -> list[tuple[str, int]]:
    """One round; the alarms."""
    with capture_logs() as logs:
        await Keeping(events, keep=keep, keep_done=keep_done, most=most, telemetry=OFF).round()
    return [(one["shard"], one["events"]) for one in logs if one["log_level"] == "error"]
