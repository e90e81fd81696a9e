"""Streams between services are held to the bounds of their protos, each as its protocol allows."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.access import access_of
from mesh.bounds import checker_of
from mesh.clock import SystemClock
from mesh.errors import failure_of
from mesh.holding import BoundsInterceptor
from mesh.ids import ulid_text
from mesh.server import INTERNAL_LISTENER, bind, new_server, running
from svc_media.servicer import MediaServicer
from svc_presence.servicer import PresenceServicer
from svc_push.servicer import PushServicer
from tests.requests import SERVICES, bounds_of
from whimbrel.media.v1 import media_pb2, media_pb2_grpc
from whimbrel.presence.v1 import presence_pb2, presence_pb2_grpc
from whimbrel.push.v1 import push_pb2, push_pb2_grpc

ONE, OTHER = b"1" * 16, b"2" * 16
# The streams whose handlers answer what is out of bounds, with the tests that see them do it.
ANSWERING = {
    "/whimbrel.message.v1.MessageService/Attach",  # tests/e2e/test_bounds.py
    "/whimbrel.push.v1.PushService/Attach",
    "/whimbrel.media.v1.MediaService/Attach",
}


class Recorder:
    """Stands for what a servicer tells, whatever that is."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def tell(*arguments: Any) -> Any:
            self.told.append((name, arguments))
            return Done()

        return tell


class Done:
    """May be awaited, and need not be."""

    def __await__(self) -> Any:
        return iter(())


@contextlib.asynccontextmanager
async def served(add: Any, servicer: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = new_server(INTERNAL_LISTENER, interceptors=[BoundsInterceptor()])
    add(servicer, server)
    address = bind(server, "127.0.0.1:0")
    async with running(server, timedelta()), grpc.aio.insecure_channel(address) as channel:
        yield channel


def test_a_stream_is_held_by_the_interceptor_or_is_known_to_answer_by_itself() -> None:
    streams = {
        f"/{service.full_name}/{method.name}": method.input_type
        for service in SERVICES
        for method in service.methods
        if method.client_streaming and access_of(service)
    }
    between_services = {name: of for name, of in streams.items() if "GatewayService" not in name}
    answering = {
        name
        for name, descriptor in between_services.items()
        if any(bounds_of(field).answered for field in descriptor.fields)
    }

    assert answering == ANSWERING
    assert len(between_services) == len(ANSWERING) + 1
    for name in between_services.keys() - answering:
        assert checker_of(between_services[name]).is_needed, name
    for name in answering:  # what it holds is looked at once, by its handler
        assert not checker_of(between_services[name]).is_needed, name


@pytest.mark.parametrize(
    ("event", "field", "allowed"),
    [
        ({"hello": {"instance_id": "x" * 65}}, "hello.instance_id", "1 to 64 characters"),
        ({"heartbeat": {"user_ids": [ONE, b"short"]}}, "heartbeat.user_ids", "16 bytes"),
        ({"gone": {"user_ids": [ONE] * 1001}}, "gone.user_ids", "at most 1000 items"),
        ({"watch": {"watcher_id": b"", "user_ids": [ONE]}}, "watch.watcher_id", "16 bytes"),
        ({"writing": {"user_id": ONE}}, "writing.chat", "peer_id or group_id"),
    ],
)
async def test_presence_ends_the_stream_that_is_out_of_bounds_and_no_other(
    event: dict[str, Any], field: str, allowed: str
) -> None:
    tracker: Any = Recorder()
    servicer = PresenceServicer(tracker, tracker, offline_after=1.0, clock=SystemClock())
    hello = presence_pb2.AttachRequest(events=[{"hello": {"instance_id": "g"}}])
    bad = presence_pb2.AttachRequest(events=[{"heartbeat": {"user_ids": [OTHER]}}, event])
    good = presence_pb2.AttachRequest(events=[{"heartbeat": {"user_ids": [ONE]}}])

    async with served(presence_pb2_grpc.add_PresenceServiceServicer_to_server, servicer) as channel:
        stub = presence_pb2_grpc.PresenceServiceStub(channel)
        honest, broken = stub.Attach(timeout=10), stub.Attach(timeout=10)
        await honest.write(hello)
        if event.keys() == {"hello"}:  # the first frame is held as well
            bad = presence_pb2.AttachRequest(events=[event])
        else:
            await broken.write(hello)
        await broken.write(bad)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await broken.read()
        await honest.write(good)
        await honest.done_writing()
        assert await honest.read() is grpc.aio.EOF
        assert await honest.code() is grpc.StatusCode.OK

    failure = failure_of(ended.value)
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
    )
    assert failure.metadata["field"] == f"events[{len(bad.events) - 1}].{field}"
    assert allowed in failure.metadata["allowed"]
    heard = [arguments[1] for name, arguments in tracker.told if name == "heard"]
    assert [list(user_ids) for user_ids in heard] == [[ONE]]  # nothing of the bad frame


async def test_push_takes_what_is_within_bounds_and_names_what_is_not() -> None:
    jobs: Any = Recorder()
    frame = push_pb2.AttachRequest(
        news=[
            push_pb2.News(id=1, user_id=ONE, device_id=1, wake={"epoch": 1}),
            push_pb2.News(id=2, user_id=b"short", device_id=1, wake={"epoch": 1}),
            push_pb2.News(id=3, user_id=ONE, device_id=128, connected={"epoch": 1}),
            push_pb2.News(id=4, user_id=OTHER, device_id=2, wake={"epoch": 1}),
        ]
    )

    add = push_pb2_grpc.add_PushServiceServicer_to_server
    async with served(add, PushServicer(jobs, jobs, None)) as channel:
        stream = push_pb2_grpc.PushServiceStub(channel).Attach(timeout=10)
        for _ in range(2):  # and it goes on
            await stream.write(frame)
            answer = await stream.read()

    assert list(answer.done) == [1, 2, 3, 4]
    assert [(one.id, one.field, one.allowed) for one in answer.refused] == [
        (2, "user_id", "16 bytes"),
        (3, "device_id", "1 to 127"),
    ]
    woken = [wake.device.user_id for name, (wakes,) in jobs.told for wake in wakes]
    assert woken == [ONE, OTHER] * 2
    assert {name for name, _ in jobs.told} == {"wake"}


async def test_media_keeps_what_is_within_bounds_and_names_what_is_not() -> None:
    retention: Any = Recorder()
    frame = media_pb2.AttachRequest(
        references=[
            media_pb2.Reference(id=1, media_id=ulid_text(ONE), expires_at=Timestamp(seconds=9)),
            media_pb2.Reference(id=2, media_id="x" * 65, expires_at=Timestamp(seconds=9)),
        ]
    )

    add = media_pb2_grpc.add_MediaServiceServicer_to_server
    async with served(add, MediaServicer(retention, retention)) as channel:
        stream = media_pb2_grpc.MediaServiceStub(channel).Attach(timeout=10)
        await stream.write(frame)
        answer = await stream.read()

    assert list(answer.done) == [1, 2]
    assert [(one.id, one.field, one.allowed) for one in answer.refused] == [
        (2, "media_id", "at most 64 characters")
    ]
    [(_, (references,))] = retention.told
    assert [media_id for media_id, _ in references] == [ONE]
