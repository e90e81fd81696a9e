"""What bad frames get: a refusal that the stream survives, or a typed end."""

import os

import grpc
import pytest

from mesh.errors import failure_of
from mesh.ids import new_ulid, random_id
from svc_gateway.window import KIB
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.device import TestDevice, a_send
from tests.svc_gateway.fake_message import until
from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import receipt_pb2, send_pb2

BAD_TO = {"field": "to", "allowed": "a user_id or a group_id of 16 bytes"}

ACK_ONE = gateway_pb2.DeviceEvent(ack=gateway_pb2.Ack(up_to_pos=1))
HELLO = gateway_pb2.DeviceEvent(hello=gateway_pb2.Hello())


async def violated(device: TestDevice) -> bool:
    """Whether the stream ended as it must for one who breaks its protocol."""
    failure = await device.ended()
    assert failure is not None
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure_of(failure).reason == "PROTOCOL_VIOLATION"
    assert device.kinds[-1] == "go_away"
    return device.all("go_away")[0].reason == reason_pb2.ERROR_REASON_PROTOCOL_VIOLATION


def rejection(device: TestDevice) -> tuple[str, dict[str, str], bool]:
    rejected: send_pb2.Rejected = device.all("rejected")[-1]
    name = reason_pb2.ErrorReason.Name(rejected.reason).removeprefix("ERROR_REASON_")
    return name, dict(rejected.metadata), rejected.HasField("retry_after")


# The stream ends.


@pytest.mark.parametrize(
    "first",
    [
        ACK_ONE,
        gateway_pb2.DeviceEvent(send=a_send(new_ulid())),
        gateway_pb2.DeviceEvent(read=receipt_pb2.Read(user_id=new_ulid(), up_to_seq=1)),
        gateway_pb2.DeviceEvent(),
    ],
    ids=["ack", "send", "read", "nothing"],
)
async def test_an_event_before_hello_ends_the_stream(
    edge: Edge, first: gateway_pb2.DeviceEvent
) -> None:
    await edge.start()
    device = edge.device()
    device.listen()

    await device.say(first)

    assert await violated(device)
    assert edge.message.service.requests == []


async def test_a_second_hello_ends_the_stream(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    await device.say(HELLO)

    assert await violated(device)


async def test_two_hellos_in_one_frame_end_the_stream(edge: Edge) -> None:
    await edge.start()
    device = edge.device()
    device.listen()

    await device.say(HELLO, HELLO)

    assert await violated(device)


async def test_an_event_without_content_ends_the_stream(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    await device.say(gateway_pb2.DeviceEvent())

    assert await violated(device)


@pytest.mark.parametrize("frame", [b"", b"\xff" * 64 * KIB, b"\x0a\xff\xff\xff\x7f"])
async def test_a_frame_that_is_none_ends_the_stream(edge: Edge, frame: bytes) -> None:
    await edge.start()
    device = await edge.connect()

    await device.say_bytes(frame)

    assert await violated(device)


async def test_64_kib_of_garbage_end_one_stream_and_no_other(edge: Edge) -> None:
    await edge.start()
    device, other = await edge.connect(), await edge.connect()

    await device.say_bytes(os.urandom(64 * KIB))

    assert await violated(device)
    await other.send(new_ulid())
    await other.until(lambda: bool(other.all("accepted")))


async def test_a_frame_above_256_kib_is_ended_by_grpc(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    await device.say_bytes(b"\x00" * 257 * KIB)

    failure = await device.ended()
    assert failure is not None
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_ack_above_the_last_delivered_pos_ends_the_stream(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    await device.ack(1)

    assert await violated(device)
    assert edge.message.service.asked("ack") == []


async def test_an_ack_of_what_another_device_was_delivered_ends_the_stream(edge: Edge) -> None:
    await edge.start()
    alice, bob, eve = await edge.connect(), await edge.connect(), await edge.connect()
    await alice.send(bob.user_id)
    await bob.until(lambda: bob.positions == [1])

    await eve.ack(1)

    assert await violated(eve)
    assert edge.store.devices[bob.user_id, 1].acked_pos == 0


async def test_a_read_of_no_conversation_ends_the_stream(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    await device.say(gateway_pb2.DeviceEvent(read=receipt_pb2.Read(up_to_seq=1)))

    assert await violated(device)


async def test_a_hello_out_of_bounds_ends_the_stream(edge: Edge) -> None:
    await edge.start()
    device = edge.device()
    device.listen()

    await device.say_hello(max_unacked=257)

    assert await violated(device)


# The stream lives.


@pytest.mark.parametrize(
    ("send", "reason", "metadata"),
    [
        (a_send(new_ulid(), b""), "BODY_EMPTY", {}),
        (send_pb2.Send(client_message_id=random_id(), user_id=new_ulid()), "BODY_EMPTY", {}),
        (
            a_send(new_ulid(), b"x" * (192 * KIB + 1)),
            "BODY_TOO_LARGE",
            {"allowed": str(192 * KIB)},
        ),
        (
            a_send(new_ulid(), id_=b"short"),
            "FIELD_INVALID",
            {"field": "client_message_id", "allowed": "16 bytes"},
        ),
        (a_send(b"short"), "FIELD_INVALID", BAD_TO),
        (a_send(b""), "FIELD_INVALID", BAD_TO),
    ],
    ids=["empty", "none", "large", "id", "user", "nobody"],
)
async def test_a_bad_send_is_rejected_for_good_and_the_stream_lives(
    edge: Edge, send: send_pb2.Send, reason: str, metadata: dict[str, str]
) -> None:
    await edge.start()
    device = await edge.connect()

    await device.say(gateway_pb2.DeviceEvent(send=send))
    await device.until(lambda: bool(device.all("rejected")))

    assert rejection(device) == (reason, metadata, False)
    assert device.all("rejected")[0].client_message_id == send.client_message_id
    await device.send(new_ulid())
    await device.until(lambda: bool(device.all("accepted")))


async def test_a_body_of_192_kib_is_taken(edge: Edge) -> None:
    await edge.start()
    device = await edge.connect()

    await device.send(new_ulid(), b"x" * 192 * KIB)

    await device.until(lambda: bool(device.all("accepted")))


async def test_the_send_that_is_one_too_many_is_rejected_for_now(edge: Edge) -> None:
    await edge.start(max_outstanding_sends=3)
    edge.message.service.silent_for = {"send"}
    device = await edge.connect()

    for _ in range(4):
        await device.send(new_ulid())
    await device.until(lambda: bool(device.all("rejected")))

    assert rejection(device) == ("TOO_MANY_OUTSTANDING", {}, True)
    assert len(device.all("rejected")) == 1


async def test_an_answer_makes_room_for_the_next_send(edge: Edge) -> None:
    await edge.start(max_outstanding_sends=1)
    device = await edge.connect()

    for count in range(1, 6):
        await device.send(new_ulid())
        await device.until(lambda count=count: len(device.all("accepted")) == count)

    assert device.all("rejected") == []


async def test_sends_above_a_mebibyte_are_rejected_for_now(edge: Edge) -> None:
    await edge.start()
    edge.message.service.silent_for = {"send"}
    device = await edge.connect()

    for _ in range(6):
        await device.send(new_ulid(), b"x" * 190 * KIB)
    await device.until(lambda: bool(device.all("rejected")))

    assert rejection(device) == ("TOO_MANY_OUTSTANDING", {}, True)


async def test_above_the_process_budget_sends_are_rejected_for_now(edge: Edge) -> None:
    await edge.start(unanswered_budget=4 * 192 * KIB)
    edge.message.service.silent_for = {"send"}
    one, other = await edge.connect(), await edge.connect()
    for _ in range(5):
        await one.send(new_ulid(), b"x" * 180 * KIB)
    await until(lambda: not edge.gateway.attach.has_room)

    await other.send(new_ulid())
    await other.until(lambda: bool(other.all("rejected")))

    assert rejection(other) == ("OVERLOADED", {}, True)


async def test_what_the_message_service_rejects_comes_back_as_it_is(edge: Edge) -> None:
    await edge.start()
    refused = send_pb2.Rejected(reason=reason_pb2.ERROR_REASON_RECIPIENT_UNKNOWN)
    edge.message.service.reject = refused
    device = await edge.connect()

    sent = await device.send(new_ulid())
    await device.until(lambda: bool(device.all("rejected")))

    assert rejection(device) == ("RECIPIENT_UNKNOWN", {}, False)
    assert device.all("rejected")[0].client_message_id == sent


async def test_a_repeated_ack_is_ignored_and_counted(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()
    await alice.send(bob.user_id)
    await bob.until(lambda: bob.positions == [1])
    await bob.ack(1)
    await edge.message.service.until(lambda: bool(edge.message.service.asked("ack")))

    await bob.ack(1)
    await until(lambda: edge.gateway.edge.tally.ignored_acks == 1)

    assert len(edge.message.service.asked("ack")) == 1
    assert len(edge.gateway.sessions) == 2
