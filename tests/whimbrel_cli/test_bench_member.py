"""A group's member in the bench: it posts as a device must, and bites when the mesh does not."""

import pytest

from tests.whimbrel_cli.test_bench_device import Wire, frame
from whimbrel.error.v1 import reason_pb2
from whimbrel.group.v1 import group_pb2
from whimbrel_cli.bench.device import Broken
from whimbrel_cli.bench.member import Member
from whimbrel_cli.bench.plan import Person

GROUP = b"g" * 16


@pytest.fixture
def member():
    member = Member(Person(b"m" * 16, "token"), "nowhere", payload_bytes=200)
    member._call = Wire()
    member.join(group_pb2.Group(group_id=GROUP, revision=7, device_epoch=3))
    return member


def deliver(pos, seq):
    return {"deliver": {"pos": pos, "seq": seq, "group_id": GROUP, "ciphertext": b"x"}}


async def test_a_post_names_what_the_group_stands_at_and_its_answer_is_timed(member):
    member.post()
    await member.flush()
    [send] = [event.send for event in member._call.events]

    await member._take(frame({"accepted": {"client_message_id": send.client_message_id, "seq": 1}}))

    assert (send.group_id, send.revision, send.device_epoch) == (GROUP, 7, 3)
    assert len(send.shared.ciphertext) == 200
    assert member.accepted == len(member.accept_seconds) == 1


async def test_deliveries_are_counted_and_acked_once_a_frame(member):
    await member._take(frame(deliver(1, 4), deliver(2, 6)))

    assert member.received == 2
    assert [event.ack.up_to_pos for event in member._call.events] == [2]


@pytest.mark.parametrize("second", [deliver(3, 5), deliver(2, 4), deliver(1, 5)])
async def test_a_hole_or_a_seq_that_does_not_ascend_is_noticed(member, second):
    await member._take(frame(deliver(1, 4)))

    with pytest.raises(Broken):
        await member._take(frame(second))


async def test_tallies_are_kept_and_a_version_that_does_not_grow_is_noticed(member):
    tally = {"seq": 1, "delivered_to": 9}
    told = {"receipt": {"version": 2, "group_id": GROUP, "tallies": [tally]}}

    await member._take(frame(told))

    assert member.delivered == {1: 9}
    with pytest.raises(Broken):
        await member._take(frame(told))


async def test_a_post_that_is_refused_for_good_is_noticed(member):
    refused = {"client_message_id": b"c" * 16, "reason": reason_pb2.ERROR_REASON_GROUP_UNKNOWN}

    with pytest.raises(Broken):
        await member._take(frame({"rejected": refused}))
