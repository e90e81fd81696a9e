"""A group's messages come to a gateway once, with the list of the devices they are for."""

from mesh.ids import new_ulid
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until
from whimbrel.message.v1 import attach_pb2, send_pb2

GROUP = bytes(range(16))


def a_run(senders: list[tuple[bytes, int]]) -> attach_pb2.MessageEvent:
    """Messages 1, 2, 3 … of the group by these devices, for nobody yet."""
    event = attach_pb2.MessageEvent()
    for seq, (user_id, device_id) in enumerate(senders, 1):
        event.run.envelopes.add(
            message_id=new_ulid(),
            group_id=GROUP,
            seq=seq,
            sender_user_id=user_id,
            sender_device_id=device_id,
            type=send_pb2.CIPHERTEXT_TYPE_SENDER_KEY,
            ciphertext=b"%d" % seq,
        )
    return event


def put(event: attach_pb2.MessageEvent, user_id: bytes, *, first_seq: int, first_pos: int) -> None:
    place = event.run.places.add(first_seq=first_seq, first_pos=first_pos)
    place.device.user_id, place.device.device_id = user_id, 1


async def test_each_device_gets_what_it_lacks_and_has_not_sent(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()
    event = a_run([(new_ulid(), 1), (alice.user_id, 1), (alice.user_id, 2)])
    put(event, alice.user_id, first_seq=1, first_pos=1)
    put(event, bob.user_id, first_seq=2, first_pos=1)

    edge.message.service.push((alice.user_id, 1), event)

    await alice.until(lambda: len(alice.all("deliver")) == 2)
    await bob.until(lambda: len(bob.all("deliver")) == 2)
    assert [(e.pos, e.ciphertext) for e in alice.all("deliver")] == [(1, b"1"), (2, b"3")]
    assert [(e.pos, e.ciphertext) for e in bob.all("deliver")] == [(1, b"2"), (2, b"3")]
    assert {e.group_id for e in bob.all("deliver")} == {GROUP}


async def test_a_device_that_is_not_here_is_told_of_and_the_others_are_served(edge: Edge) -> None:
    await edge.start()
    alice, stranger = await edge.connect(), new_ulid()
    event = a_run([(new_ulid(), 1)])
    put(event, stranger, first_seq=1, first_pos=1)
    put(event, alice.user_id, first_seq=1, first_pos=1)

    edge.message.service.push((alice.user_id, 1), event)

    await alice.until(lambda: len(alice.all("deliver")) == 1)
    await until(lambda: bool(edge.message.service.asked("not_here")))
    [not_here] = edge.message.service.asked("not_here")
    assert not_here.not_here.device.user_id == stranger


async def test_a_run_that_does_not_follow_is_read_from_the_queue(edge: Edge) -> None:
    await edge.start()
    alice = await edge.connect()
    event = a_run([(new_ulid(), 1)])
    put(event, alice.user_id, first_seq=1, first_pos=3)

    edge.message.service.push((alice.user_id, 1), event)

    await until(lambda: bool(edge.message.service.asked("fetch_page")))
    assert edge.message.service.asked("fetch_page")[-1].fetch_page.after_pos == 0
