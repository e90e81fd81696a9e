"""Requests are answered whichever instance dies, stops or comes back; pushes find their session."""

import asyncio
from typing import Any

from mesh.ids import new_ulid, slot_of
from svc_gateway.conversation import direct
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import attach_pb2, receipt_pb2


async def test_sends_go_to_the_home_slots_instance_and_acks_to_the_users(edge: Edge) -> None:
    await edge.start(messages=3)
    alice, bob = await edge.connect(), await edge.connect()
    home = edge.gateway.attach.pick(direct(alice.user_id, bob.user_id).slot)
    bobs = edge.gateway.attach.pick(slot_of(bob.user_id))

    await alice.send(bob.user_id)
    await bob.until(lambda: bob.positions == [1])
    await bob.ack(1)
    await alice.until(lambda: bool(alice.all("receipt")))

    by_id = {name: message.service for name, message in edge.messages.items()}
    assert {name for name, one in by_id.items() if one.asked("send")} == {home}
    assert {name for name, one in by_id.items() if one.asked("ack")} == {bobs}


async def test_the_conversation_is_named_alike_from_both_sides(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()

    await alice.send(bob.user_id)
    await bob.send(alice.user_id)
    await until(lambda: len(edge.message.service.asked("send")) == 2)

    one, other = (event.send for event in edge.message.service.asked("send"))
    assert (one.conversation_id, one.home) == (other.conversation_id, other.home)
    assert one.home in (alice.user_id, bob.user_id)


async def test_unanswered_requests_go_elsewhere_when_the_instance_dies(edge: Edge) -> None:
    await edge.start(messages=2)
    alice, bob = await edge.connect(), await edge.connect()
    home = edge.home_of(alice.user_id, bob.user_id)
    home.service.silent_for = {"send"}
    sent = [await alice.send(bob.user_id) for _ in range(20)]
    await until(lambda: len(home.service.asked("send")) == 20)

    await home.stop()

    await alice.until(lambda: len(alice.all("accepted")) == 20)
    assert [a.client_message_id for a in alice.all("accepted")] == sent
    assert edge.store.order == sent


async def test_an_instance_that_is_silent_is_passed_by(edge: Edge) -> None:
    await edge.start(messages=2, answer_within=0.5)
    alice, bob = await edge.connect(), await edge.connect()
    home = edge.home_of(alice.user_id, bob.user_id)
    home.service.may_write.clear()
    sent = [await alice.send(bob.user_id) for _ in range(5)]

    await alice.until(lambda: len(alice.all("accepted")) == 5)

    assert edge.store.order == sent
    slot = direct(alice.user_id, bob.user_id).slot
    assert edge.gateway.attach.pick(slot) != home.instance_id
    later = await alice.send(bob.user_id)
    await alice.until(lambda: len(alice.all("accepted")) == 6)
    assert alice.all("accepted")[-1].client_message_id == later


async def test_a_silent_instance_that_speaks_again_is_asked_again(edge: Edge) -> None:
    await edge.start(messages=2, answer_within=0.5)
    alice, bob = await edge.connect(), await edge.connect()
    home = edge.home_of(alice.user_id, bob.user_id)
    home.service.may_write.clear()
    await alice.send(bob.user_id)
    await alice.until(lambda: len(alice.all("accepted")) == 1)
    asked = len(home.service.asked("send"))

    home.service.may_write.set()
    slot = direct(alice.user_id, bob.user_id).slot
    await until(lambda: edge.gateway.attach.pick(slot) == home.instance_id)
    await alice.send(bob.user_id)
    await alice.until(lambda: len(alice.all("accepted")) == 2)

    assert len(home.service.asked("send")) == asked + 1
    assert len(alice.all("accepted")) == 2


async def test_one_request_that_is_left_over_goes_elsewhere_alone(edge: Edge) -> None:
    await edge.start(messages=2, answer_within=1)
    alice, bob = await edge.connect(), await edge.connect()
    home = edge.home_of(alice.user_id, bob.user_id)
    home.service.silent_for = {"send"}
    await alice.send(bob.user_id)

    async with asyncio.TaskGroup() as tasks:
        # Heads are answered all the time: the instance is not silent.
        beating = tasks.create_task(_beat(edge))
        await alice.until(lambda: bool(alice.all("accepted")))
        beating.cancel()

    assert edge.gateway.attach.pick(direct(alice.user_id, bob.user_id).slot) == home.instance_id


async def _beat(edge: Edge) -> None:
    while True:
        edge.gateway.heads.compare(edge.gateway.sessions)
        await asyncio.sleep(0.05)


async def test_requests_wait_while_there_is_no_instance_at_all(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()
    await edge.message.stop()
    await edge.until_attached(0)
    sent = [await alice.send(bob.user_id) for _ in range(3)]

    await edge.message.start()

    await alice.until(lambda: len(alice.all("accepted")) == 3)
    assert edge.store.order == sent


async def test_an_open_of_a_stream_that_is_over_is_not_asked_late(edge: Edge) -> None:
    await edge.start()
    await edge.message.stop()
    await edge.until_attached(0)
    early, late = edge.device(), edge.device()
    await early.say_hello()
    await late.say_hello()
    await until(lambda: len(edge.gateway.attach._homeless) == 2)
    early.listen()
    await early.close()
    await until(lambda: len(edge.gateway.servicer.streams) == 1)

    late.listen()
    await edge.message.start()
    await late.until(lambda: bool(late.all("welcome")))

    opened = [event.open.device.user_id for event in edge.message.service.asked("open")]
    assert opened == [late.user_id]
    await until(lambda: edge.gateway.attach._unanswered_bytes == 0)


async def test_a_bug_in_taking_a_push_costs_one_stream_a_moment(edge: Edge) -> None:
    await edge.start(heads_interval=0.3)
    alice, bob = await edge.connect(), await edge.connect()
    pushes = edge.gateway.attach._pushes
    hit = 0

    class Buggy:
        def push(self, event: attach_pb2.MessageEvent, attachment: Any) -> None:
            nonlocal hit
            hit += 1
            if hit == 1:
                raise KeyError("a bug")
            pushes.push(event, attachment)

        def attachment_broke(self) -> None:
            pushes.attachment_broke()

    edge.gateway.attach._pushes = Buggy()
    await alice.send(bob.user_id)

    await bob.until(lambda: bob.positions == [1])
    await bob.ack(1)
    await alice.until(lambda: bool(alice.all("receipt")))


async def test_a_new_instance_is_attached_and_one_that_left_is_not(edge: Edge) -> None:
    await edge.start()
    first = edge.message
    await edge.add_message("message-late")
    await edge.until_attached(2)

    del edge.messages[first.instance_id]
    edge.discover()

    await edge.until_attached(1)
    assert edge.gateway.attach.open_instances == ("message-late",)
    await first.stop()


async def test_a_push_for_a_session_that_is_not_here_is_answered(edge: Edge) -> None:
    await edge.start()
    stranger = (new_ulid(), 3)
    await until(lambda: edge.store.links)
    edge.store.gateways[stranger] = next(iter(edge.store.links))

    edge.message.service.push_receipt(stranger, receipt_pb2.Receipt(version=1))

    await edge.message.service.until(lambda: edge.message.service.not_here == [stranger])


async def test_an_ack_that_is_refused_for_now_is_repeated(edge: Edge) -> None:
    await edge.start()
    service = edge.message.service
    alice, bob = await edge.connect(), await edge.connect()
    service.refuse_once("ack", "SHARD_UNAVAILABLE")
    await alice.send(bob.user_id)
    await bob.until(lambda: bob.positions == [1])

    await bob.ack(1)

    await alice.until(lambda: bool(alice.all("receipt")))
    assert len(service.asked("ack")) == 2


async def test_reads_of_one_conversation_become_one_and_are_confirmed(edge: Edge) -> None:
    await edge.start()
    alice, peer = await edge.connect(), new_ulid()

    reads = [receipt_pb2.Read(user_id=peer, up_to_seq=seq) for seq in (3, 9, 4)]
    await alice.say(*[gateway_pb2.DeviceEvent(read=read) for read in reads])
    await alice.until(lambda: any(r.up_to_seq == 9 for r in alice.all("read_recorded")))

    conversation_id = direct(alice.user_id, peer).conversation_id
    assert edge.store.reads == {(alice.user_id, conversation_id): 9}
    assert [r.up_to_seq for r in alice.all("read_recorded")] == [3, 9]


async def test_a_read_that_is_refused_for_now_is_repeated(edge: Edge) -> None:
    await edge.start()
    alice, peer = await edge.connect(), new_ulid()
    edge.message.service.refuse_once("read", "SLOT_MOVING")

    read = receipt_pb2.Read(user_id=peer, up_to_seq=3)
    await alice.say(gateway_pb2.DeviceEvent(read=read))

    await alice.until(lambda: bool(alice.all("read_recorded")))


async def test_a_device_that_is_refused_for_good_is_told_why(edge: Edge) -> None:
    await edge.start()
    refusal = attach_pb2.Refused(reason=51)  # DEVICE_REVOKED
    edge.message.service.refuse = lambda event: refusal if event.HasField("open") else None
    device = edge.device()
    device.listen()

    await device.say_hello()

    failure = await device.ended()
    assert failure is not None
    assert failure.code().name == "UNAUTHENTICATED"
    assert device.kinds == ["go_away"]


async def test_a_half_closed_stream_gets_its_answers_and_ends_well(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()
    await alice.send(bob.user_id)
    await alice.half_close()

    assert await alice.ended() is None
    assert len(alice.all("accepted")) == 1
    assert "go_away" not in alice.kinds
    await until(lambda: len(edge.gateway.sessions) == 1)
