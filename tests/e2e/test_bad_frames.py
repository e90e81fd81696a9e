"""What bad frames get: the stream lives or ends, with a reason, and no other is touched."""

import grpc
import pytest

from tests.e2e.conftest import Devices
from tests.e2e.device import Device, a_send, name_of
from tests.e2e.people import Account
from whimbrel.gateway.v1 import gateway_pb2

Pair = tuple[Account, Account]

HELLO = gateway_pb2.DeviceEvent(hello=gateway_pb2.Hello())
ACK = gateway_pb2.DeviceEvent(ack=gateway_pb2.Ack(up_to_pos=1))
NOTHING = gateway_pb2.DeviceEvent()
TOO_MUCH = gateway_pb2.DeviceEvent(hello=gateway_pb2.Hello(max_unacked=257))


async def assert_violation(device: Device) -> None:
    assert await device.reason_of_end() == "PROTOCOL_VIOLATION"
    assert device.failure is not None
    assert device.failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert device.go_away is not None
    assert name_of(device.go_away.reason) == "PROTOCOL_VIOLATION"
    assert device.go_away.HasField("reconnect_after")


@pytest.mark.parametrize(
    "event",
    [ACK, gateway_pb2.DeviceEvent(send=a_send(b"u" * 16)), NOTHING, TOO_MUCH],
    ids=["ack", "send", "nothing", "a hello out of bounds"],
)
async def test_an_event_that_may_not_come_first_ends_the_stream(
    devices: Devices, pair: Pair, event: gateway_pb2.DeviceEvent
) -> None:
    device = await devices.stream(pair[0])

    await device.say(event)

    await assert_violation(device)


@pytest.mark.parametrize("event", [HELLO, NOTHING], ids=["a second hello", "nothing"])
async def test_an_event_that_may_not_come_later_ends_the_stream(
    devices: Devices, pair: Pair, event: gateway_pb2.DeviceEvent
) -> None:
    device = await devices.online(pair[0])

    await device.say(event)

    await assert_violation(device)


async def test_a_frame_without_events_ends_the_stream(devices: Devices, pair: Pair) -> None:
    device = await devices.online(pair[0])

    await device.say()

    await assert_violation(device)


async def test_sixty_four_kibibytes_of_garbage_end_the_stream(devices: Devices, pair: Pair) -> None:
    device = await devices.online(pair[0])

    await device.say_bytes(b"\xff" * 64 * 1024)

    await assert_violation(device)


async def test_an_ack_above_the_last_delivered_position_ends_the_stream(
    devices: Devices, pair: Pair
) -> None:
    """Another device's positions say nothing here: what this one was not given it cannot ack."""
    one, other = pair
    sender, receiver = await devices.online(one), await devices.online(other)
    await sender.accepted(a_send(other.user_id))
    await receiver.delivered(1)

    await sender.ack(1)

    await assert_violation(sender)
    again = await devices.online(other, gateway=1)
    await again.delivered(1)


async def test_an_ack_that_was_said_before_is_ignored(devices: Devices, pair: Pair) -> None:
    one, other = pair
    sender, receiver = await devices.online(one), await devices.online(other)
    await sender.accepted(a_send(other.user_id, b"one"))
    await receiver.delivered(1)

    await receiver.say(ACK, ACK, gateway_pb2.DeviceEvent(ack=gateway_pb2.Ack(up_to_pos=0)))
    await sender.accepted(a_send(other.user_id, b"two"))
    await receiver.delivered(2)

    assert receiver.go_away is None


async def test_a_frame_above_the_limit_ends_the_stream_of_its_sender_only(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    device, bystander = await devices.online(one), await devices.online(other)

    await device.say_bytes(b"\x0a" * 300 * 1024)
    failure = await device.ended()

    assert failure is not None
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    accepted = await bystander.accepted(a_send(one.user_id))
    assert accepted.seq == 1


async def test_a_good_frame_after_a_bad_one_is_not_obeyed(devices: Devices, pair: Pair) -> None:
    one, other = pair
    device, receiver = await devices.online(one), await devices.online(other)
    send = a_send(other.user_id, b"too late")

    await device.say(NOTHING, gateway_pb2.DeviceEvent(send=send))
    await assert_violation(device)
    again = await devices.online(one, gateway=1)
    await again.accepted(a_send(other.user_id, b"in time"))
    await receiver.delivered(1)

    assert receiver.bodies == [b"in time"]
