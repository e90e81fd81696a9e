"""Expiry is an acknowledgement by the server over the old prefix: no hole, no receipt."""

from datetime import timedelta

from mesh.ids import slot_of
from svc_message.requests import ReceiptsRequest
from svc_message.store import ShardStore


async def test_the_old_prefix_goes_and_the_rest_stays_without_a_hole(core, shards, people):
    sender, recipient = people[:2]
    name = shards.shard_of(slot_of(recipient))
    pool = shards.pool(name)
    for n in range(6):
        await core.send(sender, recipient, b"%d" % n)
    await core.core.drained()
    # 1 to 3 are old, 4 is new, 5 is old again: only the prefix may go.
    await pool.execute(
        "UPDATE device_queue SET accepted_at = now() - interval '31 days'"
        " WHERE user_id = $1 AND pos IN (1, 2, 3, 5)",
        recipient,
    )

    expired = await core.core.sweeps.expire(ShardStore(name, pool))

    assert expired == 3
    assert [row["pos"] for row in await core.page(recipient)] == [4, 5, 6]
    counters = await pool.fetchrow(
        "SELECT acked_pos, head_pos FROM device WHERE user_id = $1", recipient
    )
    assert tuple(counters) == (3, 6)
    receipts = await core.ask(ReceiptsRequest, sender, after_version=0, max_receipts=10)
    assert [row["version"] for row in receipts.rows] == [None]


async def test_a_queue_that_is_wholly_old_is_emptied_and_goes_on(core, shards, people):
    sender, recipient = people[:2]
    name = shards.shard_of(slot_of(recipient))
    for _ in range(3):
        await core.send(sender, recipient)
    await core.core.drained()

    core.core.sweeps._keep = timedelta(0)
    await core.core.sweeps.expire(ShardStore(name, shards.pool(name)))
    await core.send(sender, recipient, b"after")
    await core.core.drained()

    assert [(row["pos"], bytes(row["ciphertext"])) for row in await core.page(recipient)] == [
        (4, b"after")
    ]
