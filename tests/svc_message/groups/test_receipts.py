"""What senders learn of their messages to groups: how many have them, and who."""

import asyncio

import pytest

from mesh.ids import slot_of
from svc_message.groups.model import Leave, MessageUnknown
from svc_message.requests import ReceiptsRequest
from tests.svc_message.groups.conftest import caller


async def head_of(world, user) -> int:
    [row] = await world.shards.pool(world.shards.shard_of(slot_of(user))).fetch(
        "SELECT head_pos FROM device WHERE user_id = $1 AND device_id = 1", user
    )
    return row["head_pos"]


async def ack_all(world, users) -> None:
    await asyncio.gather(*(ack(world, user) for user in users))


async def ack(world, user) -> None:
    await world.core.ack(user, await head_of(world, user))


async def version_of(world, user) -> int:
    result = await world.core.ask(ReceiptsRequest, user, after_version=0, max_receipts=100)
    return result.rows[0]["newest"]


async def test_the_sender_learns_how_many_have_received_and_read(world, people):
    owner, *others = people[:12]
    group = await world.create(owner, others)
    for _ in range(3):
        await world.send(owner, group.group_id)
    await world.quiet()

    await ack_all(world, others[:7])
    await world.quiet()
    delivered = await world.tallies(owner)
    for reader in others[:4]:
        await world.read(reader, group.group_id, 2)
    await world.quiet()

    assert delivered == {1: (7, 0), 2: (7, 0), 3: (7, 0)}
    assert await world.tallies(owner) == {1: (7, 4), 2: (7, 4), 3: (7, 0)}


async def test_a_wave_of_members_is_few_versions_for_the_sender(world, people):
    owner, *others = people
    group = await world.create(owner, others)
    world.core.core.router.learn((owner, 1), world.core.gateway)
    await world.send(owner, group.group_id)
    await world.quiet()

    await ack_all(world, others)
    await world.quiet()

    assert await world.tallies(owner) == {1: (len(others), 0)}
    told = [row for device, row in world.core.gateway.receipts if device == (owner, 1)]
    assert 1 <= len(told) == await version_of(world, owner) <= 3
    assert told[-1].tallies == ((1, len(others), 0),)


async def test_each_sender_hears_of_their_own_messages_and_is_not_counted(world, people):
    members = people[:6]
    group = await world.create(members[0], members[1:])
    for sender in members[:3] * 2:
        await world.send(sender, group.group_id)
    await world.quiet()

    await ack_all(world, members)
    await world.quiet()

    for number, sender in enumerate(members[:3]):
        assert await world.tallies(sender) == {number + 1: (5, 0), number + 4: (5, 0)}
    assert await world.tallies(members[3]) == {}


async def test_a_member_is_one_range_however_many_have_written(world, people):
    members = people[:4]
    group = await world.create(members[0], members[1:])
    for number in range(12):
        await world.send(members[number % 4], group.group_id)
        await world.quiet()
        await ack_all(world, members)
    await world.quiet()

    pool = world.shards.pool(world.shards.shard_of(slot_of(group.group_id)))
    rows = await pool.fetch("SELECT delivered FROM receipt WHERE user_id = $1", group.group_id)
    assert {len(row["delivered"]) for row in rows} == {1}


async def test_the_sender_alone_can_ask_who(world, people):
    owner, reader, receiver, away = people[:4]
    group = await world.create(owner, [reader, receiver, away])
    await world.send(owner, group.group_id)
    await world.quiet()
    await ack_all(world, [reader, receiver])
    await world.read(reader, group.group_id, 1)
    await world.quiet()

    who = await world.groups.message_receipts(caller(owner), group.group_id, 1)

    assert sorted(who) == sorted([(reader, True), (receiver, False)])
    for user, seq in ((reader, 1), (owner, 2)):
        with pytest.raises(MessageUnknown):
            await world.groups.message_receipts(caller(user), group.group_id, seq)


async def test_what_a_dead_instance_has_not_counted_is_counted_by_the_next(world, people):
    owner, *others = people[:4]
    group = await world.create(owner, others)
    await world.send(owner, group.group_id)
    await world.quiet()
    relay = world.core.core.relay
    note, relay.note_group = relay.note_group, lambda change: None  # it dies at this point

    await ack_all(world, others)
    await world.core.core.drained()
    assert await world.tallies(owner) == {}
    relay.note_group = note
    for name in world.shards.names:
        await world.shards.pool(name).execute("UPDATE receipt_outbox SET due = now()")
    await world.quiet()

    assert await world.tallies(owner) == {1: (3, 0)}


async def test_who_has_left_still_counts_for_what_they_have_received(world, people):
    owner, member = people[:2]
    group = await world.create(owner, [member])
    await world.send(owner, group.group_id)
    await world.quiet()
    await world.change(member, group.group_id, Leave())

    await ack(world, member)
    await world.quiet()

    assert await world.tallies(owner) == {1: (1, 0)}
