"""Presence through the whole mesh: two gateways, two presence instances."""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.ids import random_id, ulid_text
from tests.e2e.conftest import Devices
from tests.e2e.device import Device, a_send, reason_of
from tests.e2e.groups import make_group
from tests.e2e.meshes import lasting_mesh
from tests.e2e.people import CALL_SECONDS, Account
from tests.faults.town import eventually
from tests.tls import calling_as
from tests.whimbrel_cli.terminal import Terminal
from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel.presence.v1 import presence_pb2, presence_pb2_grpc, state_pb2
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
    "WHIMBREL_PRESENCE_LOG_LEVEL": "DEBUG",
    "WHIMBREL_GATEWAY_LOG_LEVEL": "DEBUG",
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


async def test_a_block_and_a_choice_hide_presence_each_way(devices: Devices, mesh: Mesh) -> None:
    alice, bob, carol = [await devices.person() for _ in range(3)]
    looking, there = await devices.online(alice), await devices.online(bob, gateway=1)
    carols = await devices.online(carol, gateway=1)
    await watch(looking, bob, carol)
    await watch(there, alice)
    await looking.until(lambda: states_of(looking) == {bob.user_id: ONLINE, carol.user_id: ONLINE})
    await states(there, ONLINE)

    await call(mesh, bob, "Block", identity_pb2.BlockRequest(user_id=alice.user_id))
    hidden = identity_pb2.SetPrivacyRequest(presence_visible_to=identity_pb2.AUDIENCE_NOBODY)
    await call(mesh, carol, "SetPrivacy", hidden)

    await looking.until(lambda: states_of(looking) == {bob.user_id: HIDDEN, carol.user_id: HIDDEN})
    await states(there, ONLINE, HIDDEN)
    # Who hides theirs sees none.
    await watch(carols, bob)
    await states(carols, HIDDEN)
    # Nor is it told that who has blocked her, or whom she does not know of, writes to her.
    await write(there, to=alice.user_id)
    await write(carols, to=alice.user_id)
    await looking.until(lambda: "writing" in looking.kinds)
    assert [one.user_id for one in looking.all("writing")] == [carol.user_id]


async def test_strangers_and_people_who_do_not_exist_are_told_alike(
    devices: Devices, mesh: Mesh
) -> None:
    alice, bob = await devices.person(), await devices.person()
    contacts = identity_pb2.SetPrivacyRequest(presence_visible_to=identity_pb2.AUDIENCE_CONTACTS)
    await call(mesh, bob, "SetPrivacy", contacts)
    looking, there = await devices.online(alice), await devices.online(bob, gateway=1)
    nobody = random_id()
    chats = gateway_pb2.ChatList(user_ids=[bob.user_id, nobody])

    await looking.say(gateway_pb2.DeviceEvent(watch=chats))
    await looking.until(lambda: states_of(looking) == {bob.user_id: HIDDEN, nobody: HIDDEN})
    assert not any(one.HasField("last_seen") for one in looking.all("presence"))

    # Once he has sent to her, she is a contact of his.
    await there.accepted(a_send(alice.user_id))
    await looking.until(lambda: states_of(looking)[bob.user_id] == ONLINE)


async def test_only_members_write_into_a_group_and_are_told(devices: Devices, mesh: Mesh) -> None:
    owner, member, outsider = [await devices.person() for _ in range(3)]
    group = await make_group(mesh.gateway_addresses[0], owner, [member.user_id])
    group_id = group.group_id
    people = [
        await devices.online(one, gateway=n % 2) for n, one in enumerate((owner, member, outsider))
    ]
    owners, members, outsiders = people
    for device in people:
        await watch(device, groups=(group_id,))

    async def has_heard() -> bool:
        await write(members, group=group_id)
        return "writing" in owners.kinds

    await write(outsiders, group=group_id)
    await eventually(has_heard, within=10, every=0.2)

    notices = owners.all("writing")
    assert {(one.user_id, one.group_id) for one in notices} == {(member.user_id, group_id)}
    assert "writing" not in members.kinds
    assert "writing" not in outsiders.kinds


async def test_ten_thousand_and_one_watches_are_refused_and_harm_nothing(devices: Devices) -> None:
    alice, bob = await devices.person(), await devices.person()
    looking = await devices.online(alice)
    many = gateway_pb2.ChatList(user_ids=[random_id() for _ in range(10_001)])

    await looking.say(gateway_pb2.DeviceEvent(watch=many))
    await looking.until(lambda: "watch_refused" in looking.kinds)
    await looking.say(
        *(
            gateway_pb2.DeviceEvent(watch=gateway_pb2.ChatList(user_ids=[one]))
            for one in many.user_ids[:201]
        )
    )
    await looking.until(lambda: looking.kinds.count("watch_refused") == 2)
    await looking.say(gateway_pb2.DeviceEvent(unwatch=many))
    await watch(looking, bob)

    await looking.until(lambda: states_of(looking).get(bob.user_id) == OFFLINE)
    first = looking.all("watch_refused")[0]
    assert first.reason == reason_pb2.ERROR_REASON_TOO_MANY_WATCHES
    assert first.allowed == 200


async def test_a_flood_of_writing_is_thinned_and_harms_nothing(devices: Devices) -> None:
    alice, bob = await devices.person(), await devices.person()
    looking, there = await devices.online(alice), await devices.online(bob, gateway=1)
    await watch(looking, bob)
    await states(looking, ONLINE)

    for _ in range(5):
        await there.say(*[writing(to=alice.user_id)] * 1000)
    answer = await there.accepted(a_send(alice.user_id))
    await looking.delivered(1)

    assert answer.seq == 1
    await looking.until(lambda: "writing" in looking.kinds)
    assert looking.kinds.count("writing") <= 20


@pytest.mark.parametrize(
    "event",
    [
        gateway_pb2.DeviceEvent(watch=gateway_pb2.ChatList()),
        gateway_pb2.DeviceEvent(watch=gateway_pb2.ChatList(user_ids=[b"short"])),
        gateway_pb2.DeviceEvent(watch=gateway_pb2.ChatList(group_ids=[bytes(17)])),
        gateway_pb2.DeviceEvent(unwatch=gateway_pb2.ChatList(user_ids=[b""])),
        gateway_pb2.DeviceEvent(writing=gateway_pb2.Typing(activity=1)),
        gateway_pb2.DeviceEvent(writing=gateway_pb2.Typing(user_id=bytes(16))),
        gateway_pb2.DeviceEvent(writing=gateway_pb2.Typing(user_id=bytes(16), activity=9)),
        gateway_pb2.DeviceEvent(writing=gateway_pb2.Typing(group_id=bytes(3), activity=1)),
    ],
    ids=["no-chat", "short", "long", "empty", "nowhere", "nothing", "unknown", "short-group"],
)
async def test_garbage_ends_the_stream(devices: Devices, event: gateway_pb2.DeviceEvent) -> None:
    device = await devices.online(await devices.person())

    await device.say(event)

    assert await device.reason_of_end() == "PROTOCOL_VIOLATION"


async def test_before_hello_nothing_is_watched(devices: Devices) -> None:
    device = await devices.stream(await devices.person())

    await watch(device, device.account)

    assert await device.reason_of_end() == "PROTOCOL_VIOLATION"


async def test_a_team_reads_presence_and_nobody_else(devices: Devices, mesh: Mesh) -> None:
    bob = await devices.person()
    await devices.online(bob)
    request = presence_pb2.GetPresenceRequest(user_ids=[bob.user_id, random_id()])

    async with contextlib.AsyncExitStack() as open_channels:
        stubs = {
            name: presence_pb2_grpc.PresenceServiceStub(
                await open_channels.enter_async_context(calling_as(mesh, name, "presence"))
            )
            for name in ("helpdesk", "gateway")
        }

        async def ask(service: str, request: presence_pb2.GetPresenceRequest):
            return await stubs[service].GetPresence(request, timeout=5)

        found = []

        async def is_online() -> bool:
            found[:] = (await ask("helpdesk", request)).presences
            return found[0].state == ONLINE

        await eventually(is_online, within=10)
        with pytest.raises(grpc.aio.AioRpcError) as not_a_team:
            await ask("gateway", request)
        with pytest.raises(grpc.aio.AioRpcError) as malformed:
            await ask("helpdesk", presence_pb2.GetPresenceRequest(user_ids=[b"short"]))

    assert [one.state for one in found] == [ONLINE, OFFLINE]
    assert not found[1].HasField("last_seen")
    assert reason_of(not_a_team.value) == "CALLER_NOT_ALLOWED"
    assert reason_of(malformed.value) == "FIELD_INVALID"


@pytest.mark.timeout(120)
async def test_dead_instances_heal_and_delay_no_message(devices: Devices, mesh: Mesh) -> None:
    alice, bob = await devices.person(), await devices.person()
    looking, there = await devices.online(alice), await devices.online(bob, gateway=1)
    await watch(looking, bob)
    await states(looking, ONLINE)

    for name in ("presence-1", "presence-2"):
        mesh.kill(name)
    for name in ("presence-1", "presence-2"):
        await mesh.ended(name)
    started = time.monotonic()
    await there.accepted(a_send(alice.user_id))
    await looking.delivered(1)
    took = time.monotonic() - started
    await there.half_close()
    for name in ("presence-1", "presence-2"):
        await mesh.start(name)

    # The watch is said anew, and two heartbeats of his are missing.
    await looking.until(lambda: states_of(looking)[bob.user_id] == OFFLINE, within=30)
    assert took < 1.0


async def test_no_log_says_who_is_there_or_watches_or_writes(devices: Devices, mesh: Mesh) -> None:
    alice, bob = await devices.person(), await devices.person()
    looking, there = await devices.online(alice), await devices.online(bob, gateway=1)
    await watch(looking, bob)
    await states(looking, ONLINE)
    await write(there, to=alice.user_id)
    await looking.until(lambda: "writing" in looking.kinds)
    await there.half_close()
    await states(looking, ONLINE, OFFLINE)

    needles = [
        form
        for person in (alice, bob)
        for form in (ulid_text(person.user_id), person.user_id.hex(), repr(person.user_id)[2:-1])
    ]
    logs = [path.read_text() for path in (mesh.data / "logs").iterdir()]

    assert any("gateway attached" in log for log in logs)
    assert not [needle for needle in needles for log in logs if needle in log]


def states_of(device: Device) -> dict[bytes, int]:
    """The latest state of each person that the device has heard of."""
    return {one.user_id: one.state for one in device.all("presence")}


def writing(*, to: bytes = b"", group: bytes = b"") -> gateway_pb2.DeviceEvent:
    chat = {"group_id": group} if group else {"user_id": to}
    return gateway_pb2.DeviceEvent(
        writing=gateway_pb2.Typing(activity=state_pb2.ACTIVITY_TYPING, **chat)
    )


async def write(device: Device, **chat: bytes) -> None:
    await device.say(writing(**chat))


async def call(mesh: Mesh, person: Account, method: str, request: Any) -> None:
    """Call IdentityService in the person's name."""
    async with grpc.aio.insecure_channel(mesh.gateway_addresses[0]) as channel:
        rpc = getattr(identity_pb2_grpc.IdentityServiceStub(channel), method)
        await rpc(request, metadata=person.metadata, timeout=CALL_SECONDS)


async def test_the_command_prints_who_is_there(mesh: Mesh, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, mesh.gateway_addresses[0])
    alice, bob = (f"p{secrets.token_hex(8)}" for _ in range(2))
    for handle in (alice, bob):
        profile = terminal.data / "profiles" / handle
        await Client.register(profile, handle, gateways=mesh.gateway_addresses)

    there = await terminal.run("presence", "watch", "--as", alice, bob, "--count", "1")
    chosen = await terminal.run("presence", "show", "--as", bob, "--to", "nobody")
    hidden = await terminal.run("presence", "watch", "--as", alice, bob, "--count", "1", "--json")

    assert (there.code, chosen.code, hidden.code) == (0, 0, 0)
    assert there.out == f"{bob}: offline\n"
    assert json.loads(hidden.out)["presence"] == "hidden"
