"""What concerns a device itself: its revocation, and keys that run out."""

import asyncio

import grpc

from mesh.ids import new_ulid
from tests.svc_gateway.conftest import Edge
from tests.svc_gateway.fake_message import until
from whimbrel.message.v1 import attach_pb2


async def test_a_revoked_device_s_stream_ends_for_good(edge: Edge) -> None:
    await edge.start()
    alice, bob = await edge.connect(), await edge.connect()

    edge.message.service.push_end((alice.user_id, 1), 100, "DEVICE_REVOKED")

    failure = await alice.ended()
    assert failure is not None
    assert failure.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not alice.all("go_away")[-1].HasField("reconnect_after")
    assert bob.failure is None


async def test_a_session_that_was_opened_before_its_end_was_told_ends_too(edge: Edge) -> None:
    await edge.start(messages=2)
    user_id = new_ulid()
    # The opening is answered late, the revocation comes by another instance.
    for message in edge.messages.values():
        message.service.silent_for = {"open"}
    alice = edge.device(user_id)
    alice.listen()
    await alice.say_hello()
    services = [message.service for message in edge.messages.values()]
    await until(lambda: any(service.asked("open") for service in services))
    [asked] = [service for service in services if service.asked("open")]
    edge.message.service.push_end((user_id, 1), 5, "DEVICE_REVOKED")
    await until(lambda: edge.gateway.sessions._ended)

    opened = asked._open(next(iter(edge.store.links)), asked.asked("open")[0].open)
    opened.id = asked.asked("open")[0].id
    next(link for link in edge.store.links if link.instance is asked).say(opened)

    failure = await alice.ended()
    assert failure is not None
    assert failure.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_newer_session_outlives_the_end_of_an_older_one(edge: Edge) -> None:
    await edge.start()
    user_id = new_ulid()
    await until(lambda: edge.store.links)
    edge.message.service.push_end((user_id, 1), 1, "DEVICE_REVOKED")
    await until(lambda: edge.gateway.sessions._ended)

    alice = await edge.connect(user_id)
    await alice.send(new_ulid())

    await alice.until(lambda: bool(alice.all("accepted")))


async def test_ends_of_devices_that_never_come_are_forgotten_in_time(edge: Edge) -> None:
    await edge.start()
    sessions = edge.gateway.sessions

    for number in range(5_000):
        sessions.end_below((new_ulid(), 1), number, "DEVICE_REVOKED")

    assert len(sessions._ended) == 4096


async def test_a_device_hears_that_its_keys_run_out(edge: Edge) -> None:
    await edge.start()
    alice = await edge.connect()
    low = attach_pb2.MessageEvent()
    low.low_prekeys.device.user_id, low.low_prekeys.device.device_id = alice.user_id, 1
    low.low_prekeys.one_time_prekeys, low.low_prekeys.one_time_kem_prekeys = 19, 7

    async with asyncio.timeout(10):
        edge.message.service.push((alice.user_id, 1), low)
        await alice.until(lambda: bool(alice.all("low_prekeys")))

    [heard] = alice.all("low_prekeys")
    assert (heard.one_time_prekeys, heard.one_time_kem_prekeys) == (19, 7)
