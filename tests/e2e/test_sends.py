"""What becomes of sends that are bad, repeated, late, or too many."""

import contextlib
import time
from datetime import timedelta

import pytest

from mesh.ids import random_id
from tests.e2e.conftest import Devices
from tests.e2e.device import a_send, name_of
from tests.e2e.people import Account
from tests.faults.breaking import frozen
from whimbrel.message.v1 import send_pb2
from whimbrel_cli.stack.mesh import Mesh

Pair = tuple[Account, Account]

MOST_BODY_BYTES = 192 * 1024
DAY = 86400.0


def flawed(**changes: object) -> send_pb2.Send:
    send = a_send(b"u" * 16)
    for name, value in changes.items():
        setattr(send, name, value)
    return send


@pytest.mark.parametrize(
    ("send", "reason"),
    [
        (a_send(random_id()), "RECIPIENT_UNKNOWN"),
        (a_send(b"u" * 16, b""), "BODY_EMPTY"),
        (a_send(b"u" * 16, b"x" * (MOST_BODY_BYTES + 1)), "BODY_TOO_LARGE"),
        (a_send(b"short"), "FIELD_INVALID"),
        (flawed(client_message_id=b"short"), "FIELD_INVALID"),
        (flawed(after=b"short"), "FIELD_INVALID"),
        (send_pb2.Send(client_message_id=b"i" * 16, user_id=b"u" * 16), "BODY_EMPTY"),
        (a_send(random_id(), tried=time.time() - 7 * DAY - 600), "RETRY_TOO_OLD"),
        (a_send(random_id(), tried=time.time() + 3600 + 600), "RETRY_TOO_OLD"),
    ],
    ids=[
        "unknown recipient",
        "empty body",
        "oversized body",
        "bad recipient",
        "bad id",
        "bad after",
        "no body",
        "too old",
        "from the future",
    ],
)
async def test_a_bad_send_is_refused_for_good_and_the_stream_lives(
    devices: Devices, pair: Pair, send: send_pb2.Send, reason: str
) -> None:
    one, other = pair
    device = await devices.online(one)

    rejected = await device.rejected(send)
    accepted = await device.accepted(a_send(other.user_id, b"x" * MOST_BODY_BYTES))

    assert name_of(rejected.reason) == reason
    assert not rejected.HasField("retry_after")
    assert accepted.seq == 1


async def test_a_repeated_send_gets_the_first_answer_by_any_gateway(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    device, receiver = await devices.online(one), await devices.online(other)
    send = a_send(other.user_id, b"once")

    first = await device.accepted(send)
    await device.send(send, send)
    answers = await device.answers(send, count=3)
    elsewhere = await devices.online(one, gateway=1)
    again = await elsewhere.accepted(send)
    await elsewhere.accepted(a_send(other.user_id, b"next"))
    await receiver.delivered(2)

    assert [first, first, first] == answers
    assert again == first
    assert receiver.bodies == [b"once", b"next"]


async def test_a_retry_after_six_days_by_another_gateway_gets_the_first_answer(
    devices: Devices, pair: Pair
) -> None:
    """By its own word it was first tried six days ago, and accepted then: here, a moment ago."""
    one, other = pair
    send = a_send(other.user_id, tried=time.time() - 6 * DAY)

    first = await (await devices.online(one)).accepted(send)
    again = await (await devices.online(one, gateway=1)).accepted(send)

    assert again == first


async def test_other_content_under_a_used_id_is_a_conflict_that_tells_the_first_answer(
    devices: Devices, pair: Pair
) -> None:
    one, other = pair
    device, receiver = await devices.online(one), await devices.online(other)
    id_ = random_id()
    first = await device.accepted(a_send(other.user_id, b"one", id_=id_))

    elsewhere = await devices.online(one, gateway=1)
    rejected = await elsewhere.rejected(a_send(other.user_id, b"two", id_=id_))
    await elsewhere.accepted(a_send(other.user_id, b"three"))
    await receiver.delivered(2)

    assert name_of(rejected.reason) == "CLIENT_MESSAGE_ID_CONFLICT"
    assert not rejected.HasField("retry_after")
    assert rejected.first_answer == first
    assert receiver.bodies == [b"one", b"three"]


async def test_a_send_waits_for_the_one_that_it_names(devices: Devices, pair: Pair) -> None:
    one, other = pair
    device, receiver = await devices.online(one), await devices.online(other)
    first = a_send(other.user_id, b"first")
    second = a_send(other.user_id, b"second", after=first.client_message_id)

    rejected = await device.rejected(second)
    await device.send(first, second)
    *_, answer = await device.answers(second, count=2)
    await receiver.delivered(2)

    assert name_of(rejected.reason) == "PREVIOUS_NOT_ACCEPTED"
    assert rejected.retry_after.ToTimedelta() > timedelta(0)
    assert answer.seq == 2
    assert receiver.bodies == [b"first", b"second"]


async def test_the_501st_send_that_waits_is_refused_for_now(
    devices: Devices, pair: Pair, mesh: Mesh
) -> None:
    one, other = pair
    device = await devices.online(one)
    sends = [a_send(other.user_id, b"%d" % number) for number in range(501)]
    with contextlib.ExitStack() as standing:
        for name in ("message-1", "message-2"):
            standing.enter_context(frozen(mesh, name))

        for first in range(0, 501, 100):
            await device.send(*sends[first : first + 100])
        rejected = await device.answer(sends[500])

    assert name_of(rejected.reason) == "TOO_MANY_OUTSTANDING"
    assert rejected.retry_after.ToTimedelta() > timedelta(0)
    await device.until(lambda: len(device.all("accepted")) == 500, within=20)
    await device.send(sends[500])
    *_, answer = await device.answers(sends[500], count=2)
    assert answer.seq == 501
