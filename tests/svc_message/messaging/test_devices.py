"""Sends with a body per device: each gets its own, and a wrong device list is told, not guessed."""

import asyncio

import pytest

from mesh.clock import SystemClock
from mesh.ids import random_id, slot_of
from svc_message.requests import ReceiptsRequest
from svc_message.sending import read_send
from whimbrel.message.v1 import send_pb2


@pytest.fixture
def link(shards):
    """Links one more device to an account."""

    async def link_device(user, device_id, registration_id):
        await shards.pool(shards.shard_of(slot_of(user))).execute(
            "INSERT INTO device (user_id, device_id, registration_id, public_key)"
            " VALUES ($1, $2, $3, $4)",
            user,
            device_id,
            registration_id,
            bytes(32),
        )

    return link_device


@pytest.fixture
async def registration_of(shards):
    """The registration of an account's primary device."""

    async def read(user):
        return await shards.pool(shards.shard_of(slot_of(user))).fetchval(
            "SELECT registration_id FROM device WHERE user_id = $1 AND device_id = 1", user
        )

    return read


async def send_to_devices(core, sender, recipient, bodies, *, client_id=None):
    """The request after its answer, with (first, refusal)."""
    now = SystemClock().now()
    message = send_pb2.Send(client_message_id=client_id or random_id(), user_id=recipient)
    message.first_tried_at.FromDatetime(now)
    for user, device, registration, body in bodies:
        message.per_device.bodies.add(
            user_id=user,
            device_id=device,
            registration_id=registration,
            type=send_pb2.CIPHERTEXT_TYPE_RATCHET,
            ciphertext=body,
        )
    request = read_send(message, sender, 1, now, None)
    future = asyncio.get_running_loop().create_future()
    core.core.accepting.accept(
        request, lambda send, first, refusal: future.set_result((send, first, refusal))
    )
    return await future


async def test_each_device_of_both_gets_its_own_body_and_one_receipt(
    core, people, link, registration_of
):
    for sender, recipient in zip(people[:6], people[6:12], strict=True):
        await link(recipient, 2, 77)
        await link(sender, 3, 88)
        bodies = [
            (recipient, 1, await registration_of(recipient), b"phone"),
            (recipient, 2, 77, b"laptop"),
            (sender, 3, 88, b"own tablet"),
        ]

        _, first, refusal = await send_to_devices(core, sender, recipient, bodies)
        await core.core.drained()

        assert (first.seq, refusal) == (1, None)
        for user, device, body in (
            (recipient, 1, b"phone"),
            (recipient, 2, b"laptop"),
            (sender, 3, b"own tablet"),
        ):
            [row] = await core.page(user, device=device)
            assert bytes(row["ciphertext"]) == body
            assert bytes(row["sender_id"]) == sender
            assert bytes(row["peer_id"]) == (recipient if user == sender else sender)
        assert await core.page(sender, device=1) == []

        await core.ack(sender, 1, device=3)
        await core.ack(recipient, 1, device=2)
        await core.ack(recipient, 1, device=1)
        await core.core.drained()
        receipts = await core.ask(ReceiptsRequest, sender, after_version=0, max_receipts=10)
        assert [row["version"] for row in receipts.rows] == [1]


async def test_a_send_that_names_other_devices_is_told_which(core, people, link, registration_of):
    sender, recipient = people[:2]
    await link(recipient, 2, 77)
    await link(sender, 3, 88)
    registration = await registration_of(recipient)
    bodies = [(recipient, 1, registration + 1, b"old"), (recipient, 9, 1, b"invented")]

    send, first, refusal = await send_to_devices(core, sender, recipient, bodies)

    assert (first, refusal) == (None, None)
    assert send.mismatch.missing == [(recipient, 2), (sender, 3)]
    assert send.mismatch.extra == [(recipient, 9)]
    assert send.mismatch.stale == [(recipient, 1)]
    assert await core.page(recipient) == []


async def test_a_repaired_send_goes_under_the_same_client_id(core, people, registration_of):
    sender, recipient = people[:2]
    client_id = random_id()
    registration = await registration_of(recipient)
    await send_to_devices(
        core, sender, recipient, [(recipient, 1, registration + 1, b"old")], client_id=client_id
    )

    _, first, refusal = await send_to_devices(
        core, sender, recipient, [(recipient, 1, registration, b"new")], client_id=client_id
    )

    assert (first.seq, refusal) == (1, None)


async def test_a_retry_of_what_was_accepted_is_answered_whatever_has_changed(
    core, people, link, registration_of
):
    sender, recipient = people[:2]
    client_id = random_id()
    bodies = [(recipient, 1, await registration_of(recipient), b"body")]
    _, first, _ = await send_to_devices(core, sender, recipient, bodies, client_id=client_id)
    await link(recipient, 2, 77)
    core.core.accepting._devices._known.clear()

    _, again, refusal = await send_to_devices(core, sender, recipient, bodies, client_id=client_id)

    assert (again, refusal) == (first, None)


async def test_a_block_accepts_and_delivers_nothing(core, shards, people):
    sender, recipient = people[:2]
    pool = shards.pool(shards.shard_of(slot_of(recipient)))
    await pool.execute("INSERT INTO block (user_id, blocked_id) VALUES ($1, $2)", recipient, sender)

    first, refusal = await core.send(sender, recipient)
    await core.core.drained()
    blocked = await core.page(recipient)
    await pool.execute("DELETE FROM block")
    await core.send(sender, recipient, b"later")
    await core.core.drained()

    assert (first.seq, refusal) == (1, None)
    assert blocked == []
    [row] = await core.page(recipient)
    assert (row["seq"], bytes(row["ciphertext"])) == (2, b"later")


@pytest.mark.parametrize(
    ("bodies", "field"),
    [
        ([(b"r" * 16, 1, 1, b"x"), (b"r" * 16, 1, 1, b"y")], "per_device"),
        ([(b"z" * 16, 1, 1, b"x")], "per_device.user_id"),
        ([(b"r" * 16, 0, 1, b"x")], "per_device.device_id"),
        ([(b"r" * 16, n, 1, b"x") for n in range(1, 22)], "per_device"),
    ],
)
def test_bodies_for_devices_that_cannot_be_are_refused(bodies, field):
    message = send_pb2.Send(client_message_id=random_id(), user_id=b"r" * 16)
    now = SystemClock().now()
    message.first_tried_at.FromDatetime(now)
    for user, device, registration, body in bodies:
        message.per_device.bodies.add(
            user_id=user, device_id=device, registration_id=registration, type=2, ciphertext=body
        )

    refusal = read_send(message, b"s" * 16, 1, now, None)

    assert (refusal.reason, refusal.metadata["field"]) == ("FIELD_INVALID", field)
