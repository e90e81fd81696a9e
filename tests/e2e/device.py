"""A device as raw gRPC, one stream of it: it says what a test wants and keeps what it hears."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mesh.ids import random_id
from tests.e2e.people import Account
from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import receipt_pb2, send_pb2

CONNECT = "/whimbrel.gateway.v1.GatewayService/Connect"
WITHIN = 30.0  # seconds that a test waits for anything

# A connection of its own, as devices have.
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


class Device:
    """One stream; enter it to open a connection, leave it to half-close and be gone."""

    def __init__(
        self,
        account: Account,
        gateway: str,
        *,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
    ) -> None:
        self.account = account
        self.user_id = account.user_id
        self.heard: list[gateway_pb2.ServerEvent] = []
        self.failure: grpc.aio.AioRpcError | None = None
        self._gateway = gateway
        self._metadata = account.metadata if metadata is None else metadata
        self._news = asyncio.Condition()
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._gateway, options=CHANNEL_OPTIONS)
        method: Any = self._channel.stream_stream(CONNECT)
        self.call = method(metadata=tuple(self._metadata))
        self._reading = asyncio.create_task(self._read(), name="device-read")
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_over:
            await self.half_close()
            try:
                await self.ended(within=2)
            except TimeoutError:
                self.call.cancel()
        await self.vanish()

    async def vanish(self) -> None:
        """Be gone without a word, as when the network is."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._channel.close()

    # What it says.

    async def hello(self, *, after_receipts: int = 0, max_unacked: int = 0) -> gateway_pb2.Welcome:
        hello = gateway_pb2.Hello(after_receipts=after_receipts, max_unacked=max_unacked)
        await self.say(gateway_pb2.DeviceEvent(hello=hello))
        await self.until(lambda: bool(self.all("welcome")))
        return self.all("welcome")[0]

    async def hello_unanswered(self) -> None:
        """Say hello where no welcome is expected."""
        await self.say(gateway_pb2.DeviceEvent(hello=gateway_pb2.Hello()))

    async def say(self, *events: gateway_pb2.DeviceEvent) -> None:
        """Say these in one frame."""
        await self.say_bytes(gateway_pb2.ConnectRequest(events=events).SerializeToString())

    async def say_bytes(self, frame: bytes) -> None:
        await self.call.write(frame)

    async def send(self, *sends: send_pb2.Send) -> None:
        """Send these in one frame."""
        await self.say(*(gateway_pb2.DeviceEvent(send=send) for send in sends))

    async def ack(self, up_to_pos: int) -> None:
        await self.say(gateway_pb2.DeviceEvent(ack=gateway_pb2.Ack(up_to_pos=up_to_pos)))

    async def read(self, peer: bytes, up_to_seq: int) -> None:
        read = receipt_pb2.Read(user_id=peer, up_to_seq=up_to_seq)
        await self.say(gateway_pb2.DeviceEvent(read=read))

    async def half_close(self) -> None:
        try:
            await self.call.done_writing()
        except (asyncio.InvalidStateError, grpc.RpcError):
            return  # the server was faster

    # What it hears.

    def all(self, kind: str) -> list[Any]:
        return [getattr(e, kind) for e in self.heard if e.WhichOneof("event") == kind]

    @property
    def kinds(self) -> list[str | None]:
        return [event.WhichOneof("event") for event in self.heard]

    @property
    def positions(self) -> list[int]:
        return [envelope.pos for envelope in self.all("deliver")]

    @property
    def bodies(self) -> list[bytes]:
        return [envelope.ciphertext for envelope in self.all("deliver")]

    async def answer(self, send: send_pb2.Send, *, within: float = WITHIN) -> Any:
        """The Accepted or Rejected of the send that comes next; waits for it."""
        return (await self.answers(send, count=1, within=within))[0]

    async def answers(
        self, send: send_pb2.Send, *, count: int, within: float = WITHIN
    ) -> list[Any]:
        """All answers to the send, at least `count`; waits for them."""
        await self.until(lambda: len(self._answers_to(send)) >= count, within)
        return self._answers_to(send)

    async def accepted(self, send: send_pb2.Send, *, within: float = WITHIN) -> send_pb2.Accepted:
        """Say the send and wait until it is accepted; a refusal is a failure of the test."""
        await self.send(send)
        answer = await self.answer(send, within=within)
        assert isinstance(answer, send_pb2.Accepted), answer
        return answer

    async def rejected(self, send: send_pb2.Send) -> send_pb2.Rejected:
        """Say the send and wait until it is refused; an acceptance is a failure of the test."""
        await self.send(send)
        answer = await self.answer(send)
        assert isinstance(answer, send_pb2.Rejected), answer
        return answer

    async def delivered(self, count: int, *, within: float = WITHIN) -> list[Any]:
        """The envelopes heard so far, at least `count`; waits for them."""
        await self.until(lambda: len(self.positions) >= count, within)
        return self.all("deliver")

    async def receipt_covering(
        self, peer: bytes, seq: int, *, is_read: bool = False, within: float = WITHIN
    ) -> receipt_pb2.Receipt:
        """The newest receipt, once it says that the peer has (read) the message."""
        await self.until(lambda: self._covers(peer, seq, is_read=is_read), within)
        return self.all("receipt")[-1]

    async def until(self, condition: Callable[[], bool], within: float = WITHIN) -> None:
        """Wait until what was heard is so; fails the test with what was heard instead."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            heard = ", ".join(map(str, self.kinds[-20:]))
            raise TimeoutError(f"{within} s; heard: {heard}; failed: {self.failure}") from None

    async def ended(self, *, within: float = WITHIN) -> grpc.aio.AioRpcError | None:
        """Wait until the server has ended the stream; its failure, if it is one."""
        await self.until(lambda: self._is_over, within)
        return self.failure

    async def reason_of_end(self, *, within: float = WITHIN) -> str:
        """Why the server ended the stream, by its status."""
        failure = await self.ended(within=within)
        return "" if failure is None else reason_of(failure)

    @property
    def go_away(self) -> gateway_pb2.GoAway | None:
        return self.all("go_away")[0] if "go_away" in self.kinds else None

    def _answers_to(self, send: send_pb2.Send) -> list[Any]:
        answers = [
            getattr(event, str(event.WhichOneof("event")))
            for event in self.heard
            if event.WhichOneof("event") in {"accepted", "rejected"}
        ]
        return [one for one in answers if one.client_message_id == send.client_message_id]

    def _covers(self, peer: bytes, seq: int, *, is_read: bool) -> bool:
        return any(
            receipt.user_id == peer
            and any(part.first <= seq <= part.last for part in receipt.delivered)
            and (not is_read or receipt.read_up_to >= seq)
            for receipt in self.all("receipt")
        )

    async def _read(self) -> None:
        try:
            while (frame := await self.call.read()) is not grpc.aio.EOF:
                async with self._news:
                    self.heard += gateway_pb2.ConnectResponse.FromString(frame).events
                    self._news.notify_all()
            if await self.call.code() is not grpc.StatusCode.OK:
                async for _ in self.call:  # raises what it ended with
                    pass
        except grpc.aio.AioRpcError as error:
            self.failure = error
        finally:
            self._is_over = True
            async with self._news:
                self._news.notify_all()


def a_send(
    to: bytes,
    body: bytes = b"hi",
    *,
    id_: bytes | None = None,
    after: bytes = b"",
    tried: float | None = None,
) -> send_pb2.Send:
    """A message for a person, first tried now or at `tried`, in seconds since the epoch."""
    send = send_pb2.Send(
        client_message_id=id_ or random_id(),
        user_id=to,
        after=after,
        shared=send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_PLAIN, ciphertext=body),
    )
    send.first_tried_at.FromMilliseconds(int((time.time() if tried is None else tried) * 1000))
    return send


def reason_of(failure: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo's reason of a failed call; empty if it has none."""
    status = rpc_status.from_call(failure)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == "whimbrel":
            return str(info.reason)
    return ""


def name_of(reason: Any) -> str:
    """A reason of the wire without its prefix."""
    return reason_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
