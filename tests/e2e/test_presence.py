"""Presence through the whole mesh: two gateways, two presence instances."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from mesh.ids import random_id
from tests.e2e.conftest import Devices
from tests.e2e.device import Device, a_send
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import Account
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel.presence.v1 import state_pb2
from whimbrel_cli.stack.mesh import Mesh
from whimbrel_client import Client
from whimbrel_client.presence import Activity, Presence, PresenceState, Sign, Writing

ONLINE = state_pb2.PRESENCE_STATE_ONLINE
OFFLINE = state_pb2.PRESENCE_STATE_OFFLINE
HIDDEN = state_pb2.PRESENCE_STATE_HIDDEN

# So that a test need not wait as long as people may.
_FAST = {
    "WHIMBREL_GATEWAY_HEARTBEAT": "PT1S",
    "WHIMBREL_PRESENCE_OFFLINE_AFTER": "PT4S",
    "WHIMBREL_PRESENCE_AUDIENCE_FRESH": "PT1S",
}


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """Two gateways, two presence instances, and one of what they need."""
    names = [f"{service}-{n}" for service in ("gateway", "presence") for n in (1, 2)]
    env_of = {
        name: {k: v for k, v in _FAST.items() if name.split("-")[0].upper() in k} for name in names
    }
    with lasting_mesh(presence=2, message=1, shards=1, env_of=env_of) as mesh:
        yield mesh


@pytest.fixture
async def devices(mesh: Mesh) -> AsyncIterator[Devices]:
    async with AsyncExitStack() as opened:
        yield Devices(mesh, opened)


async def watch(device: Device, *people: Account, groups: tuple[bytes, ...] = ()) -> None:
    chats = gateway_pb2.ChatList(user_ids=[one.user_id for one in people], group_ids=groups)
    await device.say(gateway_pb2.DeviceEvent(watch=chats))


async def states(device: Device, *expected: int) -> list[state_pb2.Presence]:
    """The presences that the device has heard, once these were the last states."""

    def heard() -> bool:
        return [one.state for one in device.all("presence")][-len(expected) :] == [*expected]

    await device.until(heard)
    return device.all("presence")


async def test_a_flip_is_seen_at_the_other_gateway(devices: Devices) -> None:
    alice, bob = await devices.person(), await devices.person()
    looking = await devices.online(alice, gateway=0)

    await watch(looking, bob)
    await states(looking, OFFLINE)
    async with AsyncExitStack() as until_gone:
        there = await until_gone.enter_async_context(
            Device(bob, devices._mesh.gateway_addresses[1])
        )
        await there.hello()
        await states(looking, OFFLINE, ONLINE)
    told = await states(looking, OFFLINE, ONLINE, OFFLINE)

    assert {one.user_id for one in told} == {bob.user_id}
    # Never there before; then to the minute.
    assert not told[0].HasField("last_seen")
    assert told[-1].last_seen.seconds % 60 == 0
    assert told[-1].last_seen.nanos == 0


async def test_the_sdk_tells_who_is_there_and_who_writes(mesh: Mesh, tmp_path: Path) -> None:
    handles = [f"p{secrets.token_hex(8)}" for _ in range(2)]
    for handle in handles:
        await Client.register(tmp_path / handle, handle, gateways=mesh.gateway_addresses)
    first, other = ([address] for address in mesh.gateway_addresses)

    async with Client.connect(tmp_path / handles[0], gateways=first) as one:
        peer = await one.user_named(handles[1])
        async with contextlib.aclosing(one.presences.watch(peer)) as signs:
            before = await anext(signs)
            async with Client.connect(tmp_path / handles[1], gateways=other) as there:
                await there.online()
                arrived = await anext(signs)
                there.presences.write(one.user_id, Activity.RECORDING)
                writing = await anext(signs)
            left = [sign async for sign in first_of(signs, PresenceState.OFFLINE)]

    assert (before, arrived) == (
        Presence(peer, PresenceState.OFFLINE),
        Presence(peer, PresenceState.ONLINE),
    )
    assert writing == Writing(peer, Activity.RECORDING)
    assert left[-1].last_seen is not None


async def first_of(signs: AsyncIterator[Sign], state: PresenceState) -> AsyncIterator[Sign]:
    """The signs up to the first presence in that state."""
    async for sign in signs:
        yield sign
        if isinstance(sign, Presence) and sign.state is state:
            return
