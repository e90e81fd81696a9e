"""The registry of sessions ends right, whatever races through it and whatever Redis forgets."""

import asyncio
import random
from signal import SIGCONT

import redis.asyncio as redis

from tests.e2e.device import Device, a_send
from tests.e2e.people import register, register_all
from tests.faults.breaking import frozen
from tests.faults.town import eventually
from whimbrel_cli.stack.mesh import Mesh

DEVICES = 300
RECONNECTS = 10
AT_ONCE = 40


def key_of(user_id: bytes) -> str:
    return f"whimbrel:session:{{{user_id.hex()}}}:1"


async def epoch_of(client: redis.Redis, user_id: bytes) -> int:
    """The epoch of the registered session; 0 if there is none."""
    value = await client.get(key_of(user_id))
    return int(value.decode().partition(":")[0]) if value else 0


async def test_three_hundred_devices_that_reconnect_ten_times_are_all_registered(
    mesh: Mesh,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    gateways = mesh.gateway_addresses
    people = await register_all(gateways[0], DEVICES)
    turns = asyncio.Semaphore(AT_ONCE)
    last: list[Device] = []

    async def live(person: object) -> None:
        for reconnect in range(RECONNECTS):
            async with turns:
                device = Device(person, chance.choice(gateways))
                await device.__aenter__()
                welcome = await device.hello()
                assert welcome.epoch > reconnect
                if reconnect == RECONNECTS - 1:
                    last.append(device)
                elif chance.random() < 0.5:
                    await device.__aexit__()
                else:
                    await device.vanish()

    try:
        async with asyncio.TaskGroup() as lives:
            for person in people:
                lives.create_task(live(person))
        async with redis.from_url(mesh.stack.redis_url) as client:

            async def all_right() -> bool:
                values = await client.mget([key_of(device.user_id) for device in last])
                epochs = [int((value or b"0:").partition(b":")[0]) for value in values]
                return epochs == [device.all("welcome")[0].epoch for device in last]

            await eventually(all_right)
        assert all(device.go_away is None for device in last)
    finally:
        await asyncio.gather(*(device.vanish() for device in last))


async def test_a_flush_of_redis_does_not_promote_a_session_that_was_replaced(mesh: Mesh) -> None:
    here, there = mesh.gateway_addresses
    one, other = await register_all(there, 2)
    async with (
        redis.from_url(mesh.stack.redis_url) as client,
        Device(one, here) as zombie,
        Device(other, there) as sender,
    ):
        await zombie.hello()
        await sender.hello()
        with frozen(mesh, "gateway-1"):
            device = Device(one, there)
            async with device:
                epoch = (await device.hello()).epoch
                await client.flushall()
                mesh.kill("gateway-1", SIGCONT)

                assert await zombie.reason_of_end(within=10) == "STREAM_REPLACED"
                await eventually(lambda: is_epoch(client, one.user_id, epoch))
                await sender.accepted(a_send(one.user_id))
                await device.delivered(1, within=5)


async def is_epoch(client: redis.Redis, user_id: bytes, epoch: int) -> bool:
    return await epoch_of(client, user_id) == epoch


async def test_a_session_that_ended_leaves_no_entry(mesh: Mesh) -> None:
    person = await register(mesh.gateway_addresses[0])
    async with redis.from_url(mesh.stack.redis_url) as client:
        async with Device(person, mesh.gateway_addresses[0]) as device:
            epoch = (await device.hello()).epoch
            await eventually(lambda: is_epoch(client, person.user_id, epoch))

        await eventually(lambda: is_epoch(client, person.user_id, 0))
