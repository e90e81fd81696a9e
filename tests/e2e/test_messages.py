"""A message's life through the whole mesh, as two raw devices see it."""

from tests.e2e.conftest import Devices
from tests.e2e.device import a_send
from tests.e2e.people import Account

Pair = tuple[Account, Account]


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
