"""A device as raw gRPC: it says what a test wants and keeps what it hears."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from mesh.ids import random_id
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import send_pb2

CONNECT = "/whimbrel.gateway.v1.GatewayService/Connect"


class TestDevice:
    """One stream of one device."""

    __test__ = False

    def __init__(
        self,
        user_id: bytes,
        token: str,
        address: str,
        *,
        options: Sequence[tuple[str, int]] = (),
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.user_id = user_id
        self.heard: list[gateway_pb2.ServerEvent] = []
        self.frames = 0
        self.failure: grpc.aio.AioRpcError | None = None
        self._news = asyncio.Condition()
        # A connection of its own, as devices have.
        own = ("grpc.use_local_subchannel_pool", 1)
        self._channel = grpc.aio.insecure_channel(address, options=[own, *options])
        method: Any = self._channel.stream_stream(CONNECT)
        bearer = [("authorization", f"Bearer {token}")] if token else []
        self.call = method(metadata=[*bearer, *metadata])
        self._reading: asyncio.Task[None] | None = None

    def listen(self) -> None:
        self._reading = asyncio.create_task(self._read())

    async def hello(self, *, after_receipts: int = 0, max_unacked: int = 0) -> None:
        await self.say_hello(after_receipts=after_receipts, max_unacked=max_unacked)
        self.listen()
        await self.until(lambda: bool(self.all("welcome")))

    async def say_hello(self, *, after_receipts: int = 0, max_unacked: int = 0) -> None:
        hello = gateway_pb2.Hello(after_receipts=after_receipts, max_unacked=max_unacked)
        await self.say(gateway_pb2.DeviceEvent(hello=hello))

    async def say(self, *events: gateway_pb2.DeviceEvent) -> None:
        await self.say_bytes(gateway_pb2.ConnectRequest(events=events).SerializeToString())

    async def say_bytes(self, frame: bytes) -> None:
        await self.call.write(frame)

    async def send(self, to: bytes, body: bytes = b"hi", id_: bytes | None = None) -> bytes:
        send = a_send(to, body, id_)
        await self.say(gateway_pb2.DeviceEvent(send=send))
        return send.client_message_id

    async def ack(self, up_to_pos: int) -> None:
        await self.say(gateway_pb2.DeviceEvent(ack=gateway_pb2.Ack(up_to_pos=up_to_pos)))

    def all(self, kind: str) -> Sequence[Any]:
        return [getattr(e, kind) for e in self.heard if e.WhichOneof("event") == kind]

    @property
    def kinds(self) -> list[str | None]:
        return [event.WhichOneof("event") for event in self.heard]

    @property
    def positions(self) -> list[int]:
        return [envelope.pos for envelope in self.all("deliver")]

    async def until(self, condition: Callable[[], bool], within: float = 20) -> None:
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(condition)

    async def ended(self, within: float = 20) -> grpc.aio.AioRpcError | None:
        """Wait until the server has ended the stream; its failure, if it is one."""
        assert self._reading is not None
        async with asyncio.timeout(within):
            await self._reading
        return self.failure

    async def half_close(self) -> None:
        await self.call.done_writing()

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await self._channel.close()

    async def _read(self) -> None:
        try:
            while (frame := await self.call.read()) is not grpc.aio.EOF:
                async with self._news:
                    self.frames += 1
                    self.heard += gateway_pb2.ConnectResponse.FromString(frame).events
                    self._news.notify_all()
            status = await self.call.code()
            if status is not grpc.StatusCode.OK:
                async for _ in self.call:  # raises what it ended with
                    pass
        except grpc.aio.AioRpcError as error:
            self.failure = error


def a_send(to: bytes, body: bytes = b"hi", id_: bytes | None = None) -> send_pb2.Send:
    shared = send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_PLAIN, ciphertext=body)
    send = send_pb2.Send(client_message_id=id_ or random_id(), user_id=to, shared=shared)
    send.first_tried_at.FromSeconds(int(time.time()))
    return send
