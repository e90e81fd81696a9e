"""An account writes to fifty people a day who never wrote to it, whichever instances take it."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from mesh.clock import SystemClock
from mesh.ids import random_id, slot_of
from mesh.telemetry import OFF
from svc_message.core import build_core
from svc_message.sending import read_send
from tests.svc_message.messaging.conftest import Core, EmptyRegistry, settings_for_test
from whimbrel.message.v1 import send_pb2

MOST = 50


@pytest.fixture
async def crowd(bulk_accounts):
    """A sender, and more people than it may write to in a day."""
    sender, *others = [account.user_id for account in await bulk_accounts(MOST + 6)]
    return sender, others


@pytest.fixture
async def other_core(shards, tmp_path):
    """A second instance on the same shards."""
    pools = {name: shards.pool(name) for name in shards.names}
    built = build_core(settings_for_test(tmp_path), pools, EmptyRegistry(), OFF)
    await built.shards.read_maps()
    running = asyncio.create_task(built.run())
    yield Core(built)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def spent(core, crowd):
    """The sender has written to as many as it may."""
    sender, others = crowd
    answers = await asyncio.gather(*(core.send(sender, other) for other in others[:MOST]))
    assert all(refusal is None for _, refusal in answers)
    return sender, others[:MOST], others[MOST:]


async def test_the_fifty_first_is_refused_and_told_when_there_may_be_another(core, crowd):
    sender, known, strangers = await spent(core, crowd)

    first, refusal = await core.send(sender, strangers[0])

    assert first is None
    assert refusal.reason == "RATE_LIMITED"
    assert refusal.metadata == {"limit": "first_contacts", "allowed": "50"}
    assert timedelta(hours=23) < refusal.retry_after <= timedelta(days=1)
    assert (await core.send(sender, known[0]))[1] is None


async def test_two_instances_together_let_fifty_begin(core, other_core, crowd):
    sender, others = crowd

    answers = await asyncio.gather(
        *((core, other_core)[i % 2].send(sender, other) for i, other in enumerate(others))
    )

    outcomes = Counter(refusal.reason if refusal else "accepted" for _, refusal in answers)
    assert outcomes == {"accepted": MOST, "RATE_LIMITED": len(others) - MOST}


async def test_answering_somebody_is_no_first_contact(core, crowd):
    sender, _, strangers = await spent(core, crowd)
    await core.send(strangers[0], sender)

    _, refusal = await core.send(sender, strangers[0])

    assert refusal is None


async def test_a_retry_of_what_was_accepted_gets_the_first_answer(core, crowd):
    sender, others = crowd
    client_id, now = random_id(), SystemClock().now()
    first, _ = await core.send(sender, others[0], client_id=client_id, tried=now)
    await asyncio.gather(*(core.send(sender, other) for other in others[1:]))

    again, refusal = await core.send(sender, others[0], client_id=client_id, tried=now)

    assert refusal is None
    assert again == first


async def test_a_day_later_there_is_room_again(core, crowd, shards):
    sender, _, strangers = await spent(core, crowd)
    pool = shards.pool(shards.shard_of(slot_of(sender)))
    await pool.execute("UPDATE first_contact SET contacted_at = contacted_at - interval '1 day'")

    _, refusal = await core.send(sender, strangers[0])
    await core.core.sweeps.round()

    assert refusal is None
    left = await pool.fetch("SELECT recipient_id FROM first_contact WHERE user_id = $1", sender)
    assert [row["recipient_id"] for row in left] == [strangers[0]]


async def test_who_is_in_a_group_with_the_sender_is_no_stranger(core, crowd, shards):
    sender, _, strangers = await spent(core, crowd)
    group = random_id()
    pool = shards.pool(shards.shard_of(slot_of(group)))
    await pool.execute(
        "INSERT INTO chat_group (group_id, slot, revision, member_count, send_role)"
        " VALUES ($1, $2, 1, 2, 2)",
        group,
        slot_of(group),
    )
    for member, left_seq in ((sender, None), (strangers[0], None), (strangers[1], 5)):
        await pool.execute(
            "INSERT INTO member VALUES ($1, $2, 1, 0, $3, 0, 1)", group, member, left_seq
        )

    _, member_refusal = await core.send(sender, strangers[0])
    _, former_refusal = await core.send(sender, strangers[1])

    assert member_refusal is None
    assert former_refusal.reason == "RATE_LIMITED"


async def test_neither_nobody_nor_oneself_nor_a_teams_people_are_counted(core, crowd):
    sender, _, strangers = await spent(core, crowd)

    _, to_nobody = await core.send(sender, random_id())
    _, to_oneself = await core.send(sender, sender)
    of_team = await _as_team(core, sender, strangers[0])

    assert to_nobody.reason == "RECIPIENT_UNKNOWN"
    assert to_oneself is None
    assert of_team is None


async def _as_team(core, sender, recipient):
    now = SystemClock().now()
    body = send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_PLAIN, ciphertext=b"an invoice")
    message = send_pb2.Send(client_message_id=random_id(), user_id=recipient, shared=body)
    message.first_tried_at.FromDatetime(now)
    send = read_send(message, sender, 1, now, None)
    send.is_of_team = True
    answered = asyncio.get_running_loop().create_future()
    core.core.accepting.accept(send, lambda _send, _first, refusal: answered.set_result(refusal))
    return await answered
