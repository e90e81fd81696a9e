"""Where traces stand is stored for what is sampled, on the shard that has the slot, for a while."""

from datetime import timedelta

from mesh.ids import random_id, slot_of

_ROWS = "SELECT count(*) FROM message_trace"


async def test_only_what_is_sampled_leaves_a_trace_and_only_where_its_slot_is(core, people, shards):
    sender, recipient, *_ = people
    slot, message_id, trace = slot_of(recipient), random_id(), b"t" * 24
    await core.send(sender, recipient)
    stores = {name: core.core.sweeps._stores[name] for name in shards.names}

    for store in stores.values():
        await store.traces.note([slot], [message_id], [trace])

    for name, store in stores.items():
        here = name == shards.shard_of(slot)
        assert await store.traces.find([message_id]) == ({message_id: trace} if here else {})
        assert await shards.pool(name).fetchval(_ROWS) == here


async def test_traces_are_forgotten_when_their_messages_are(core, people, shards):
    slot, message_id = slot_of(people[0]), random_id()
    store = core.core.sweeps._stores[shards.shard_of(slot)]
    await store.traces.note([slot], [message_id], [b"t" * 24])

    await store.traces.forget(timedelta(days=30))
    kept = await store.traces.find([message_id])
    await store.traces.forget(timedelta(seconds=-1))

    assert kept
    assert await store.traces.find([message_id]) == {}
