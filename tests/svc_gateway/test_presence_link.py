"""The stream to one presence instance: whatever becomes of it, the next is told everything."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from mesh.channels import Channels
from mesh.clock import SystemClock
from mesh.ids import random_id
from mesh.instances import Instance
from mesh.server import INTERNAL_LISTENER, bind, new_server
from mesh.tls import Identity
from svc_gateway import to_presence
from svc_gateway.presence_link import PresenceLink
from whimbrel.presence.v1 import presence_pb2, presence_pb2_grpc


class Instances(presence_pb2_grpc.PresenceServiceServicer):
    """Keeps what each stream was told; `reads` says how the next behave."""

    def __init__(self) -> None:
        self.streams: list[list[presence_pb2.GatewayEvent]] = []
        self.is_deaf = False
        self.is_ending = asyncio.Event()

    async def Attach(self, request_iterator: Any, context: Any) -> None:
        told: list[presence_pb2.GatewayEvent] = []
        self.streams.append(told)
        while (frame := await context.read()) is not grpc.aio.EOF:
            told += frame.events
            if self.is_deaf:
                await self.is_ending.wait()


@pytest.fixture
def instances() -> Instances:
    return Instances()


@pytest.fixture
async def link(instances: Instances) -> AsyncIterator[PresenceLink]:
    server = new_server(INTERNAL_LISTENER)
    presence_pb2_grpc.add_PresenceServiceServicer_to_server(instances, server)
    channels = Channels(Identity.insecure("gateway"))
    channels.update({"p": Instance("p", "presence", bind(server, "127.0.0.1:0"))})
    await server.start()
    link = PresenceLink(
        "p",
        channels,
        gateway_id="g",
        everything=lambda _instance_id: [to_presence.heartbeat([b"somebody"])],
        on_event=lambda _event: None,
        clock=SystemClock(),
    )
    running = asyncio.create_task(link.run())
    yield link
    running.cancel()
    await asyncio.wait([running])
    instances.is_ending.set()
    await channels.close()
    await server.stop(0)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def kinds(stream) -> list[str]:
    return [event.WhichOneof("event") for event in stream]


async def test_hello_stands_alone_and_everything_follows(link, instances) -> None:
    await until(lambda: link.is_open and instances.streams and len(instances.streams[0]) == 2)
    link.say(to_presence.gone(random_id()))
    await until(lambda: len(instances.streams[0]) == 3)

    assert kinds(instances.streams[0]) == ["hello", "heartbeat", "gone"]
    assert instances.streams[0][0].hello.instance_id == "g"


async def test_an_instance_that_does_not_read_is_told_everything_anew(link, instances) -> None:
    instances.is_deaf = True
    await until(lambda: link.is_open and len(instances.streams) == 1)

    instances.is_deaf = False
    for _ in range(40):
        link.say(to_presence.heartbeat([random_id()] * 40_000))
        await asyncio.sleep(0)
    await until(lambda: len(instances.streams) == 2 and len(instances.streams[1]) >= 2)

    assert kinds(instances.streams[1])[:2] == ["hello", "heartbeat"]
    assert instances.streams[1][1].heartbeat.user_ids == [b"somebody"]


async def test_nothing_is_said_to_an_instance_that_is_not_there() -> None:
    link = PresenceLink(
        "nobody",
        Channels(Identity.insecure("gateway")),
        gateway_id="g",
        everything=lambda _instance_id: (),
        on_event=lambda _event: None,
        clock=SystemClock(),
    )

    link.say(to_presence.gone(random_id()))

    assert not link.is_open
    assert not link._outbox.size
