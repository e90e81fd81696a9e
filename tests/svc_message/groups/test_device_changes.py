"""When a group is told that a member's devices have changed."""

import asyncio

from mesh.ids import slot_of
from tests.svc_message.messaging.test_devices import send_to_devices


async def test_a_group_is_told_when_nobody_goes_by_the_devices_of_before(world, people) -> None:
    ann, ben = people[:2]
    group = await world.create(ann, [ben])
    await world.link_device(ben, 2)
    await world.quiet()
    _, told = await world.standing(group.group_id)
    pool = world.shards.pool(world.shards.shard_of(slot_of(ben)))
    devices = await pool.fetch(
        "SELECT device_id, registration_id FROM device WHERE user_id = $1", ben
    )
    both = [(ben, *row, b"a key") for row in devices]
    _, first, _ = await send_to_devices(world.core, ann, ben, both)
    assert len(both) == 2
    assert first is not None  # and the list is remembered

    await pool.execute("UPDATE device SET linked = false WHERE user_id = $1 AND device_id = 2", ben)
    async with asyncio.timeout(20):
        while (await world.standing(group.group_id))[1] == told:
            await asyncio.sleep(0.01)
    send, first, _ = await send_to_devices(world.core, ann, ben, both)

    assert first is None
    assert send.mismatch.extra == [(ben, 2)]
