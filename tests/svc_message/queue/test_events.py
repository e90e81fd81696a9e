"""What the transactions tell, and that it is told if and only if they commit."""

import pytest

from mesh.ids import random_id, slot_of
from svc_message.conversations import direct_conversation
from svc_message.groups.model import SetAttributes
from svc_message.queue.event_store import Event, EventKind
from svc_message.requests import ReadRequest
from tests.svc_message.queue.conftest import read_all, told_of


def an_event(kind, key, **fields) -> Event:
    """An event with nothing but what its kind has."""
    empty = dict.fromkeys(Event.__slots__)
    return Event(**{**empty, "entry_id": 0, "kind": kind, "key_id": key, **fields})


@pytest.mark.parametrize("across", [False, True], ids=["one shard", "two shards"])
async def test_a_message_is_told_as_accepted_delivered_and_read(core, people, events, across):
    alice = people[0]
    is_low = slot_of(alice) < 8192
    bob = next(
        p for p in people[1:] if (slot_of(p) < 8192) is not (is_low if across else not is_low)
    )
    conversation = direct_conversation(alice, bob)[0]

    first, _ = await core.send(alice, bob)
    await core.core.drained()
    [row] = await core.page(bob)
    await core.ack(bob, row["pos"])
    await core.ask(ReadRequest, bob, conversation_id=conversation, author_id=alice, up_to_seq=1)
    await core.core.drained()

    receipt = {"person_id": bob, "author_id": alice, "number": 1}
    assert sorted(await told_of(events, conversation), key=lambda event: event.kind) == [
        an_event(
            EventKind.ACCEPTED,
            conversation,
            person_id=alice,
            device_id=1,
            number=1,
            message_id=first.message_id,
        ),
        an_event(EventKind.DELIVERED, conversation, after_seq=0, **receipt),
        an_event(EventKind.READ, conversation, **receipt),
    ]


async def test_a_retry_and_a_refused_send_are_not_told(core, people, events):
    alice, bob = people[:2]
    client_id = random_id()

    for _ in range(3):
        await core.send(alice, bob, client_id=client_id)
    _, conflict = await core.send(alice, bob, b"other", client_id=client_id)
    _, refusal = await core.send(alice, bob, after=random_id())

    assert (conflict.reason, refusal.reason) == (
        "CLIENT_MESSAGE_ID_CONFLICT",
        "PREVIOUS_NOT_ACCEPTED",
    )
    assert len(await told_of(events, direct_conversation(alice, bob)[0])) == 1


async def test_a_group_is_told_with_its_revisions_messages_and_receipts(world, people, events):
    alice, bob, carol = people[:3]
    group = (await world.create(alice, [bob, carol])).group_id
    await world.change(alice, group, SetAttributes(b"other"))
    answer = await world.send(alice, group)
    await world.quiet()
    [row] = await world.core.page(bob)
    await world.core.ack(bob, row["pos"])
    await world.quiet()

    assert sorted(await told_of(events, group), key=lambda event: event.kind) == [
        an_event(
            EventKind.ACCEPTED,
            group,
            person_id=alice,
            device_id=1,
            number=1,
            message_id=answer.first.message_id,
        ),
        an_event(EventKind.DELIVERED, group, person_id=bob, after_seq=0, number=1),
        an_event(EventKind.GROUP_CHANGED, group, person_id=alice, number=1),
        an_event(EventKind.GROUP_CHANGED, group, person_id=alice, number=2),
    ]


async def test_a_device_is_told_when_it_is_linked_and_never_when_it_is_unlinked(
    shards, people, events
):
    user = people[0]
    pool = shards.pool(shards.shard_of(slot_of(user)))
    device = (
        "INSERT INTO device (user_id, device_id, registration_id, public_key, has_queue) VALUES"
    )
    await pool.execute(f"{device} ($1, 2, 7, '', true), ($1, 3, 7, '', false)", user)
    for is_linked in (False, True, True):
        await pool.execute(
            "UPDATE device SET linked = $2 WHERE user_id = $1 AND device_id = 2", user, is_linked
        )

    told = [event.device_id for event in await told_of(events, user)]

    assert told == [1, 2, 2]  # 1 with the account


@pytest.mark.parametrize("session_variables", [{}], ids=["off"])
async def test_nothing_is_written_when_nobody_wants_events(core, people, events):
    alice, bob = people[:2]
    await core.send(alice, bob)
    await core.core.drained()
    [row] = await core.page(bob)
    await core.ack(bob, row["pos"])

    assert await read_all(events) == []
