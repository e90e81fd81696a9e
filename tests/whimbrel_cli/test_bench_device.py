"""The device of the bench: it keeps the rules, and it bites when the mesh does not."""

import pytest

from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel_cli.bench.device import Broken, Device
from whimbrel_cli.bench.plan import Person

ME, PEER = b"m" * 16, b"p" * 16


class Wire:
    """The call of a stream that only remembers what was written."""

    def __init__(self):
        self.frames = []

    async def write(self, frame):
        self.frames.append(gateway_pb2.ConnectRequest.FromString(frame))

    @property
    def events(self):
        return [event for frame in self.frames for event in frame.events]


@pytest.fixture
def device():
    device = Device(Person(ME, "token"), "nowhere", payload_bytes=200)
    device._call = Wire()
    return device


def frame(*events):
    return gateway_pb2.ConnectResponse(
        events=[gateway_pb2.ServerEvent(**event) for event in events]
    )


def deliver(pos, seq, number):
    body = number.to_bytes(8, "big")
    return {"deliver": {"pos": pos, "seq": seq, "user_id": PEER, "ciphertext": body}}


def receipt(version, first, last):
    delivered = [{"first": first, "last": last}]
    return {"receipt": {"version": version, "user_id": PEER, "delivered": delivered}}


def accepted(send, seq):
    return {"accepted": {"client_message_id": send.client_message_id, "seq": seq}}


async def sent(device, count):
    chat = device.chat(PEER)
    for _ in range(count):
        device.send(chat)
    await device.flush()
    return chat, [event.send for event in device._call.events if event.HasField("send")]


async def test_each_send_names_the_latest_one_that_is_not_answered(device):
    chat, (first, second, third) = await sent(device, 3)
    await device._take(frame(accepted(first, 1), accepted(second, 2), accepted(third, 3)))

    _, sends = await sent(device, 1)

    before = [first.client_message_id, second.client_message_id]
    assert [send.after for send in sends] == [b"", *before, b""]
    assert chat.accepted == 3
    assert len(first.shared.ciphertext) == 200


async def test_a_frame_of_deliveries_is_answered_by_one_ack_of_all(device):
    await device._take(frame(deliver(1, 1, 1), deliver(2, 2, 2), deliver(3, 5, 3)))

    assert [[event.ack.up_to_pos for event in f.events] for f in device._call.frames] == [[3]]
    assert device.chat(PEER).received == 3


async def test_a_message_is_done_when_its_receipt_has_come_whatever_came_first(device):
    done = []
    device.on_done = lambda _device, _chat, seconds: done.append(seconds)
    chat, sends = await sent(device, 3)

    await device._take(frame(accepted(sends[0], 1), receipt(1, 1, 2)))
    assert len(done) == 1
    await device._take(frame(accepted(sends[1], 2)))
    assert len(done) == 2
    await device._take(frame(accepted(sends[2], 3)))
    assert len(done) == 2
    await device._take(frame(receipt(2, 1, 3)))

    assert len(done) == 3
    assert chat.is_settled


async def test_what_is_refused_for_now_is_repeated_to_the_byte(device):
    _, sends = await sent(device, 1)
    refusal = {
        "client_message_id": sends[0].client_message_id,
        "reason": reason_pb2.ERROR_REASON_OVERLOADED,
        "retry_after": {"nanos": 1},
    }

    await device._take(frame({"rejected": refusal}))
    device._repeat(device.chat(PEER).unanswered[sends[0].client_message_id])
    await device.flush()

    again = [event.send for event in device._call.events]
    assert again == [sends[0], sends[0]]
    assert device.retries == 1


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([deliver(2, 1, 1)], id="a hole in the queue"),
        pytest.param([deliver(1, 1, 1), deliver(1, 1, 1)], id="a delivery twice"),
        pytest.param([deliver(1, 2, 1), deliver(2, 1, 2)], id="seqs that go back"),
        pytest.param([deliver(1, 1, 2)], id="a message that is missing"),
        pytest.param([deliver(1, 1, 1), deliver(2, 2, 1)], id="a message under two seqs"),
        pytest.param([receipt(2, 1, 1), receipt(2, 1, 1)], id="a receipt twice"),
        pytest.param([{"accepted": {"client_message_id": b"?" * 16}}], id="an unasked answer"),
        pytest.param([{"go_away": {}}], id="the end"),
    ],
)
async def test_a_violation_of_the_contract_ends_the_run(device, events):
    with pytest.raises(Broken):
        await device._take(frame(*events))


async def test_an_order_of_seqs_that_is_not_the_order_of_sending_ends_the_run(device):
    _, sends = await sent(device, 2)

    with pytest.raises(Broken):
        await device._take(frame(accepted(sends[0], 2), accepted(sends[1], 1)))


async def test_a_refusal_for_good_ends_the_run(device):
    _, sends = await sent(device, 1)
    refusal = {
        "client_message_id": sends[0].client_message_id,
        "reason": reason_pb2.ERROR_REASON_BODY_EMPTY,
    }

    with pytest.raises(Broken, match="BODY_EMPTY"):
        await device._take(frame({"rejected": refusal}))
