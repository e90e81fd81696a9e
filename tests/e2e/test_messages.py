"""A message's life through the whole mesh, as raw devices see it."""

import pytest

from mesh.ids import slot_of
from tests.e2e.conftest import Devices
from tests.e2e.device import Device, a_send, name_of
from tests.e2e.people import Account

Pair = tuple[Account, Account]

SLOTS_OF_SHARD_0 = range(8192)
WINDOW = 256


async def person_on(devices: Devices, *, shard: int) -> Account:
    while True:
        person = await devices.person()
        if (slot_of(person.user_id) not in SLOTS_OF_SHARD_0) == bool(shard):
            return person


async def write_all(sender: Device, to: bytes, count: int) -> None:
    """Send numbered messages, many a frame, and wait until all are accepted."""
    sends = [a_send(to, b"%d" % number) for number in range(count)]
    for first in range(0, count, 100):
        part = sends[first : first + 100]
        await sender.send(*part)
        await sender.answer(part[-1])


async def test_a_message_is_accepted_delivered_acked_receipted_and_read(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    sender = await devices.online(one, gateway=0)
    receiver = await devices.online(other, gateway=1)
    send = a_send(other.user_id, b"words")

    accepted = await sender.accepted(send)
    (envelope,) = await receiver.delivered(1)
    await receiver.ack(envelope.pos)
    delivered = await sender.receipt_covering(other.user_id, accepted.seq)
    await receiver.read(one.user_id, envelope.seq)
    read = await sender.receipt_covering(other.user_id, accepted.seq, is_read=True)

    assert (accepted.seq, envelope.seq, envelope.pos) == (1, 1, 1)
    assert envelope.message_id == accepted.message_id
    assert envelope.accepted_at == accepted.accepted_at
    assert (envelope.user_id, envelope.sender_user_id) == (one.user_id, one.user_id)
    assert envelope.ciphertext == b"words"
    assert delivered.read_up_to == 0
    assert delivered.version < read.version
    await receiver.until(lambda: "read_recorded" in receiver.kinds)


@pytest.mark.parametrize(("from_shard", "to_shard"), [(0, 0), (0, 1), (1, 0), (1, 1)])
async def test_messages_go_within_a_shard_and_between_two(
    devices: Devices, from_shard: int, to_shard: int
) -> None:
    one = await person_on(devices, shard=from_shard)
    other = await person_on(devices, shard=to_shard)
    sender, receiver = await devices.online(one), await devices.online(other, gateway=1)

    seqs = [(await sender.accepted(a_send(other.user_id, b"%d" % n))).seq for n in range(5)]
    envelopes = await receiver.delivered(5)
    await receiver.ack(5)
    await sender.receipt_covering(other.user_id, 5)

    assert seqs == [envelope.seq for envelope in envelopes] == [1, 2, 3, 4, 5]
    assert receiver.bodies == [b"0", b"1", b"2", b"3", b"4"]


async def test_what_came_while_the_device_was_away_is_drained_and_then_it_is_caught_up(
    devices: Devices,
) -> None:
    # On one shard what is accepted is in the queue, too.
    one, other = await person_on(devices, shard=0), await person_on(devices, shard=0)
    sender = await devices.online(one)
    await write_all(sender, other.user_id, 400)

    receiver = await devices.stream(other, gateway=1)
    welcome = await receiver.hello()
    await receiver.delivered(WINDOW)
    await receiver.ack(WINDOW)
    await receiver.delivered(400)
    assert "caught_up" not in receiver.kinds
    await receiver.ack(400)
    await receiver.until(lambda: "caught_up" in receiver.kinds)

    assert welcome.head_pos == receiver.all("caught_up")[0].pos == 400
    assert receiver.positions == list(range(1, 401))
    assert receiver.bodies == [b"%d" % number for number in range(400)]


async def test_a_device_with_nothing_waiting_is_caught_up_at_once(
    devices: Devices, pair: Pair
) -> None:
    device = await devices.online(pair[0])

    await device.until(lambda: "caught_up" in device.kinds)

    assert device.all("caught_up")[0].pos == 0


async def test_the_window_holds_back_what_is_not_acknowledged(devices: Devices, pair: Pair) -> None:
    one, other = pair
    sender = await devices.online(one)
    receiver = await devices.online(other, max_unacked=3)

    await write_all(sender, other.user_id, 8)
    await receiver.delivered(3)
    await receiver.ack(2)
    await receiver.delivered(5)
    # Were the window wider, the rest would have come by now: one ack frees what it covers.
    assert receiver.positions == [1, 2, 3, 4, 5]
    await receiver.ack(5)
    await receiver.delivered(8)
    await receiver.ack(8)

    assert receiver.positions == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_mebibyte_that_is_not_acknowledged_fills_the_window(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    sender, receiver = await devices.online(one), await devices.online(other)
    body = b"x" * (192 * 1024)

    for _ in range(7):
        await sender.accepted(a_send(other.user_id, body))
    await receiver.delivered(5)
    assert receiver.positions == [1, 2, 3, 4, 5]
    await receiver.ack(5)

    await receiver.delivered(7)


async def test_what_was_not_acknowledged_comes_again_on_the_next_stream(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    sender, first = await devices.online(one), await devices.online(other)
    await write_all(sender, other.user_id, 4)
    await first.delivered(4)
    await first.ack(2)
    await sender.receipt_covering(other.user_id, 2)
    await first.half_close()
    await first.ended()

    second = await devices.online(other, gateway=1)

    await second.delivered(2)
    assert second.positions == [3, 4]


@pytest.mark.parametrize("gateway", [0, 1], ids=["same gateway", "another gateway"])
async def test_a_newer_stream_of_the_device_replaces_the_older(
    devices: Devices, pair: Pair, gateway: int
) -> None:
    older = await devices.online(pair[0])
    first_epoch = older.all("welcome")[0].epoch

    newer = await devices.online(pair[0], gateway=gateway)

    assert await older.reason_of_end() == "STREAM_REPLACED"
    assert older.go_away is not None
    assert name_of(older.go_away.reason) == "STREAM_REPLACED"
    assert 1 <= older.go_away.reconnect_after.ToTimedelta().total_seconds() <= 5
    assert newer.all("welcome")[0].epoch == first_epoch + 1


async def test_a_device_that_moves_to_another_gateway_is_pushed_to_there(
    devices: Devices, pair: Pair
) -> None:
    """Both message instances have pushed to it at the first gateway: they must not go on so."""
    other = pair[1]
    senders = [await devices.online(await devices.person()) for _ in range(8)]
    first = await devices.online(other, gateway=0)
    for sender in senders:
        await sender.accepted(a_send(other.user_id, b"before"))
    await first.delivered(8)
    await first.ack(8)
    for sender in senders:
        await sender.receipt_covering(other.user_id, 1)

    second = await devices.online(other, gateway=1)
    for number, sender in enumerate(senders):
        await sender.accepted(a_send(other.user_id, b"after"))
        # One by one: the next push would heal what the one before has lost.
        await second.delivered(number + 1, within=2)


async def test_receipts_that_came_while_the_sender_was_away_wait_for_it(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    sender = await devices.online(one)
    await write_all(sender, other.user_id, 3)
    await sender.half_close()
    await sender.ended()
    receiver = await devices.online(other)
    await receiver.delivered(3)
    await receiver.ack(3)
    await receiver.until(lambda: "caught_up" in receiver.kinds)

    again = await devices.online(one, gateway=1)
    receipt = await again.receipt_covering(other.user_id, 3)
    later = await devices.online(one, after_receipts=receipt.version)
    await write_all(later, other.user_id, 1)

    assert [(part.first, part.last) for part in receipt.delivered] == [(1, 3)]
    assert later.all("receipt") == []


async def test_a_message_to_oneself_is_accepted_and_comes_to_no_device_of_the_sender(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    device, peer = await devices.online(one), await devices.online(other)

    accepted = await device.accepted(a_send(one.user_id, b"note"))
    await peer.accepted(a_send(one.user_id, b"hello"))
    await device.delivered(1)

    assert accepted.seq == 1
    assert device.bodies == [b"hello"]


async def test_a_read_further_than_was_delivered_counts_as_what_was_delivered(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    sender, receiver = await devices.online(one), await devices.online(other)
    await write_all(sender, other.user_id, 2)
    await receiver.delivered(2)
    await receiver.ack(2)

    await receiver.read(one.user_id, 99)
    receipt = await sender.receipt_covering(other.user_id, 2, is_read=True)

    assert receipt.read_up_to == 2
