"""A group's message: accepted once, then in every member's queue, and in nobody else's."""

import asyncio

from mesh.ids import random_id
from svc_message.groups import fanning
from svc_message.groups.model import Add, Leave, Remove
from svc_message.groups.requests import Chunk, Run


async def test_a_message_reaches_every_member_on_every_shard_and_nobody_else(world, people):
    owner, *others = people[:12]
    group = await world.create(owner, others)

    answer = await world.send(owner, group.group_id, b"words")
    await world.quiet()

    assert answer.seq == 1
    for member in others:
        [row] = await world.core.page(member)
        assert (bytes(row["ciphertext"]), row["is_group"]) == (b"words", True)
        assert (row["peer_id"], row["sender_id"]) == (group.group_id, owner)
    for stranger in [owner, *people[12:]]:
        assert await world.core.page(stranger) == []


async def test_an_instance_that_has_too_much_in_hand_refuses_for_now_and_goes_on_later(
    world, people, monkeypatch
):
    owner, member = people[:2]
    group = await world.create(owner, [member])
    client_id = random_id()

    with monkeypatch.context() as patched:
        patched.setattr(fanning, "_MOST_CARRIED", 0)
        refused = await world.send(owner, group.group_id, client_id=client_id)
    again = await world.send(owner, group.group_id, client_id=client_id)
    await world.quiet()

    assert refused.refusal.reason == "OVERLOADED"
    assert refused.refusal.retry_after
    assert again.seq == 1
    assert await world.bodies(member) == [b"hello"]


async def test_many_senders_at_once_give_one_gapless_order_for_all(world, people):
    members = people[:8]
    group = await world.create(members[0], members[1:])
    at = await world.standing(group.group_id)

    answers = await asyncio.gather(
        *(world.send(members[n % 8], group.group_id, b"%d" % n, at=at) for n in range(160))
    )
    await world.quiet()

    assert sorted(answer.seq for answer in answers) == list(range(1, 161))
    order = {answer.seq: b"%d" % n for n, answer in enumerate(answers)}
    for number, member in enumerate(members):
        expected = [body for seq, body in sorted(order.items()) if int(body) % 8 != number]
        assert await world.bodies(member) == expected


async def test_the_senders_other_devices_get_the_message_and_the_sending_one_does_not(
    world, people
):
    owner, member = people[:2]
    await world.link_device(owner, 3)
    await world.quiet()
    group = await world.create(owner, [member])

    for number, device in enumerate((1, 3, 1), 1):
        answer = await world.send(owner, group.group_id, b"from %d" % device, device=device)
        assert answer.seq == number
    await world.quiet()

    assert await world.bodies(owner) == [b"from 3"]
    assert await world.bodies(owner, device=3) == [b"from 1", b"from 1"]
    assert await world.seqs(member) == [1, 2, 3]


async def test_who_gets_a_message_is_decided_when_it_is_accepted(world, people):
    owner, goes, comes, stays = people[:4]
    group = await world.create(owner, [goes, stays])
    accepting = world.core.core.groups.accepting
    carry, held = accepting.carry, []
    accepting.carry = held.append

    await world.send(owner, group.group_id, b"before")
    await world.change(owner, group.group_id, Remove(goes))
    await world.change(owner, group.group_id, Add((comes,)))
    await world.send(owner, group.group_id, b"after")
    accepting.carry = carry
    assert len(held) == 2
    for message in reversed(held):
        carry(message)
    await world.quiet()

    assert await world.bodies(goes) == [b"before"]
    assert await world.bodies(comes) == [b"after"]
    assert await world.bodies(stays) == [b"before", b"after"]


async def test_who_leaves_and_comes_again_misses_what_was_between(world, people):
    owner, member = people[:2]
    group = await world.create(owner, [member])

    for body, change, actor in (
        (b"1", Leave(), member),
        (b"2", Add((member,)), owner),
        (b"3", Leave(), member),
        (b"4", Add((member,)), owner),
        (b"5", None, owner),
    ):
        await world.send(owner, group.group_id, body)
        if change is not None:
            await world.change(actor, group.group_id, change)
    await world.quiet()

    assert await world.bodies(member) == [b"1", b"3", b"5"]


async def test_a_retry_gets_the_first_answer_whatever_has_changed_since(world, people):
    owner, member = people[:2]
    group = await world.create(owner, [member])
    at, client_id = await world.standing(group.group_id), random_id()
    first = await world.send(member, group.group_id, b"one", at=at, client_id=client_id)
    await world.change(owner, group.group_id, Remove(member))

    again = await world.send(member, group.group_id, b"one", at=at, client_id=client_id)
    other = await world.send(member, group.group_id, b"two", at=at, client_id=client_id)
    await world.quiet()

    assert (again.first, again.refusal) == (first.first, None)
    assert (other.first, other.refusal.reason) == (first.first, "CLIENT_MESSAGE_ID_CONFLICT")
    assert await world.bodies(owner) == [b"one"]


async def test_what_nobody_carries_is_taken_when_it_is_overdue(world, people):
    owner, *others = people[:6]
    group = await world.create(owner, others)
    held = []
    world.core.core.groups.accepting.carry = held.append
    for n in range(5):
        await world.send(owner, group.group_id, b"%d" % n)
    assert len(held) == 5

    for name in world.shards.names:
        # The lowest come due last.
        await world.shards.pool(name).execute(
            "UPDATE group_outbox SET due = now() + make_interval(secs => (5 - seq) * 0.1)"
        )
    await world.quiet()

    for member in others:
        assert await world.bodies(member) == [b"0", b"1", b"2", b"3", b"4"]


async def test_online_members_of_one_gateway_share_the_body(world, people):
    owner, *others = people[:10]
    group = await world.create(owner, others)
    for member in others[:6]:
        world.core.core.router.learn((member, 1), world.core.gateway)

    await world.send(owner, group.group_id, b"words")
    await world.quiet()

    pushed = world.core.gateway.runs
    assert {place.user_id for _, place in pushed} == set(others[:6])
    assert {(place.first_seq, place.first_pos) for _, place in pushed} == {(1, 1)}
    assert len({id(run) for run, _ in pushed}) == 1


async def test_a_run_that_is_written_in_part_is_written_to_its_end(world, shards, people):
    """Any cut of any run, by senders who are recipients too: each row once, in its place."""
    members = people[:4]
    await world.link_device(members[0], 2)
    await world.quiet()
    group = await world.create(members[0], members[1:])
    fan_out = world.core.core.groups.fan_out
    held = []
    world.core.core.groups.accepting.carry = held.append
    senders = [(0, 1), (1, 1), (0, 2), (0, 1), (2, 1), (2, 1), (1, 1), (0, 2)]
    for number, device in senders:
        await world.send(members[number], group.group_id, b"%d" % number, device=device)
    recipients = await fan_out._roster.recipients(Run(held[:1]))

    for first, last in ((0, 1), (0, 3), (1, 5), (0, 8), (0, 8), (5, 8)):
        for name in shards.names:
            here = [one for one in recipients if shards.shard_of(one.slot) == name]
            if here:
                run = Run(held[first:last])
                chunk = Chunk(slot=here[0].slot, done=None, run=run, recipients=here)
                [result] = await fan_out._stores[name].write([chunk])
                assert result.missed == []

    for number, device in ((0, 1), (0, 2), (1, 1), (2, 1), (3, 1)):
        rows = await world.core.page(members[number], device=device)
        expected = [seq for seq, sender in enumerate(senders, 1) if sender != (number, device)]
        assert [row["seq"] for row in rows] == expected
        assert [row["pos"] for row in rows] == list(range(1, len(expected) + 1))


async def test_a_run_behind_a_missing_one_is_written_for_nobody_who_lacks_it(world, shards, people):
    owner, member = people[:2]
    group = await world.create(owner, [member])
    fan_out = world.core.core.groups.fan_out
    held = []
    world.core.core.groups.accepting.carry = held.append
    for _ in range(2):
        await world.send(owner, group.group_id)
    recipients = await fan_out._roster.recipients(Run(held[1:]))
    [recipient] = [one for one in recipients if one.user_id == member]

    chunk = Chunk(slot=recipient.slot, done=None, run=Run(held[1:]), recipients=[recipient])
    [result] = await fan_out._stores[shards.shard_of(recipient.slot)].write([chunk])

    assert (result.places, result.missed) == ([], [(recipient, 4)])
    assert await world.core.page(member) == []
