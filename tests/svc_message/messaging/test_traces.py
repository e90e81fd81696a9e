"""Where traces stand is stored for what is sampled, on the shard that has the slot, for a while."""

from datetime import timedelta

from mesh.ids import random_id, slot_of
from svc_message.groups.requests import Chunk, Recipient
from svc_message.requests import PageRequest
from svc_message.results import PageResult
from svc_message.trace_store import Traced
from svc_message.traces import note_run_traces
from tests.svc_message.groups.test_link import a_run

_ROWS = "SELECT count(*) FROM message_trace"


async def test_only_what_is_sampled_leaves_a_trace_and_only_where_its_slot_is(core, people, shards):
    sender, recipient, *_ = people
    slot, message_id, trace = slot_of(recipient), random_id(), b"t" * 24
    await core.send(sender, recipient)
    stores = {name: core.core.sweeps._stores[name] for name in shards.names}

    for store in stores.values():
        await store.traces.note([Traced(slot, message_id, trace)])

    for name, store in stores.items():
        here = name == shards.shard_of(slot)
        found = await store.traces.find([(slot, message_id), (slot + 1, message_id)])
        assert found == ({(slot, message_id): trace} if here else {})
        assert await shards.pool(name).fetchval(_ROWS) == here


async def test_traces_are_forgotten_when_their_messages_are(core, people, shards):
    slot, message_id = slot_of(people[0]), random_id()
    store = core.core.sweeps._stores[shards.shard_of(slot)]
    await store.traces.note([Traced(slot, message_id, b"t" * 24)])

    await store.traces.forget(timedelta(days=30))
    kept = await store.traces.find([(slot, message_id)])
    await store.traces.forget(timedelta(seconds=-1))

    assert kept
    assert await store.traces.find([(slot, message_id)]) == {}


async def test_of_a_message_that_two_read_in_one_batch_only_the_noted_one_has_its_trace(
    core, people, shards
):
    one, *others = people
    shard = shards.shard_of(slot_of(one))
    other = next(user for user in others if shards.shard_of(slot_of(user)) == shard)
    message_id = random_id()
    await core.core.sweeps._stores[shard].traces.note([Traced(slot_of(one), message_id, b"t" * 24)])
    rows = [{"message_id": message_id, "pos": 1}]
    results = [PageResult(1, rows) for _ in range(2)]

    await core.core.inbox._find_traces(shard, [a_page(one), a_page(other)], results)

    assert [result.traces for result in results] == [{message_id: b"t" * 24}, {}]


def a_page(user: bytes) -> PageRequest:
    return PageRequest(
        slot=slot_of(user),
        done=lambda *_: None,
        user_id=user,
        device_id=1,
        after_pos=0,
        max_envelopes=10,
        max_bytes=1000,
    )


class Noting:
    """A store that keeps what it is asked to note, each time."""

    def __init__(self) -> None:
        self.asked: list[list[Traced]] = []

    async def note(self, traced: list[Traced]) -> None:
        self.asked.append(traced)


def a_chunk(run, *, members: int, traces=()) -> Chunk:
    recipients = [Recipient(random_id(), slot, 0, 0) for slot in range(members)]
    return Chunk(slot=0, done=lambda *_: None, run=run, recipients=recipients, traces=traces)


async def test_a_run_of_which_nothing_is_sampled_asks_the_shard_for_nothing():
    store = Noting()

    await note_run_traces(store, [a_chunk(a_run(b"a", b"b"), members=100)])

    assert store.asked == []


async def test_a_run_is_noted_in_one_statement_for_eight_members_and_others_for_the_next():
    store, run = Noting(), a_run(b"a", b"b", b"c")
    for message in run.messages[1:]:
        message.trace = b"t" * 24
    chunks = [
        a_chunk(run, members=100, traces=[b"2" * 24, b"3" * 24]),
        a_chunk(run, members=100),
        a_chunk(run, members=3, traces=[b"4" * 24, b"5" * 24]),
    ]

    await note_run_traces(store, chunks)

    [noted] = store.asked
    _, second, third = (message.message_id for message in run.messages)
    assert [one.slot for one in noted if one.trace == b"2" * 24] == [*range(2, 10)]
    assert [one.slot for one in noted if one.trace == b"3" * 24] == [*range(3, 11)]
    assert {one.message_id for one in noted if one.trace[:1] in b"24"} == {second}
    assert {one.message_id for one in noted if one.trace[:1] in b"35"} == {third}
    assert sorted(one.slot for one in noted if one.trace == b"4" * 24) == [0, 1, 2]
