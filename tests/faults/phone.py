"""A device that does all that the protocol asks of a client, raw, and writes down what it saw.

It stores in memory, repeats what was not answered, keeps its order by `after`, acknowledges what
it has, and comes back when a stream ends. What it claims not to be is an SDK: it shows everything
that comes over the wire, twice if it comes twice.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from mesh.ids import random_id
from tests.e2e.device import CHANNEL_OPTIONS, CONNECT, a_send, name_of, reason_of
from tests.e2e.people import Account
from tests.faults.history import (
    Acked,
    Answered,
    CaughtUp,
    Ended,
    History,
    Opened,
    Read,
    Receipted,
    Received,
    Refused,
    Tried,
)
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2

_WELCOME_SECONDS = 5.0
_LONGEST_PAUSE = 0.5
_READS_ONE_IN = 8


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message on its way out."""

    client_id: bytes
    to: bytes
    body: bytes
    number: int
    tried: float | None = None
    is_on_the_way: bool = False
    retry_at: float = 0.0


class Phone:
    """One person's only device."""

    def __init__(
        self,
        name: str,
        account: Account,
        gateways: Sequence[str],
        history: History,
        *,
        chance: random.Random,
        on_event: Callable[[], None],
        window: int = 4,
    ) -> None:
        self.name = name
        self.account = account
        self.user_id = account.user_id
        self.sent = 0
        self.is_acking = True
        self._gateways = list(gateways)
        self._history = history
        self._chance = chance
        self._on_event = on_event
        self._window = window
        self._queue: OrderedDict[bytes, Outgoing] = OrderedDict()  # what is not answered
        self._stored_pos = self._acked_pos = 0
        self._version = 0
        self._reads: dict[bytes, int] = {}  # what is not recorded
        self._said_reads: dict[bytes, int] = {}
        self._wake = asyncio.Event()
        self._is_open = False
        self._closing = False
        history.name(account.user_id, name)

    def write(self, to: bytes, body: bytes) -> None:
        """Queue a message; it goes out by itself."""
        self.sent += 1
        client_id = random_id()
        self._queue[client_id] = Outgoing(client_id, to, body, self.sent)
        self._wake.set()

    @property
    def unanswered(self) -> int:
        return len(self._queue)

    @property
    def gateway(self) -> str | None:
        """Where its stream is open now."""
        return self._gateways[0] if self._is_open else None

    def close(self) -> None:
        """Half-close, and come back no more."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Be connected, at one gateway after the other, until closed."""
        self._closing = False
        while not self._closing:
            reason, pause = await self._one_stream(self._gateways[0])
            self._note(Ended, reason=reason)
            self._gateways.append(self._gateways.pop(0))
            if not self._closing:
                await asyncio.sleep(pause)

    async def _one_stream(self, gateway: str) -> tuple[str, float]:
        for outgoing in self._queue.values():
            outgoing.is_on_the_way = False
        self._is_open = False
        self._said_reads.clear()
        ended: gateway_pb2.GoAway | None = None
        async with grpc.aio.insecure_channel(gateway, options=CHANNEL_OPTIONS) as channel:
            method: Any = channel.stream_stream(
                CONNECT,
                request_serializer=gateway_pb2.ConnectRequest.SerializeToString,
                response_deserializer=gateway_pb2.ConnectResponse.FromString,
            )
            call = method(metadata=self.account.metadata)
            writing = asyncio.create_task(self._write(call), name=f"{self.name}-write")
            try:
                ended = await self._read(call)
                reason = name_of(ended.reason) if ended else ""
            except grpc.aio.AioRpcError as error:
                reason = reason_of(error) or error.code().name
            except (TimeoutError, asyncio.InvalidStateError) as error:
                reason = type(error).__name__
                call.cancel()
            finally:
                self._is_open = False
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        after = ended.reconnect_after.ToTimedelta().total_seconds() if ended else 0.0
        return reason, min(_LONGEST_PAUSE, max(after, self._chance.uniform(0.02, 0.2)))

    async def _read(self, call: Any) -> gateway_pb2.GoAway | None:
        ended: gateway_pb2.GoAway | None = None
        async with asyncio.timeout(_WELCOME_SECONDS) as deadline:
            while (frame := await call.read()) is not grpc.aio.EOF:
                deadline.reschedule(None)
                for event in frame.events:
                    self._hear(event)
                    if event.HasField("go_away"):
                        ended = event.go_away
                self._wake.set()
                self._on_event()
        if await call.code() is not grpc.StatusCode.OK and ended is None:
            async for _ in call:  # raises what it ended with
                pass
        return ended

    def _hear(self, event: gateway_pb2.ServerEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "welcome":
            self._is_open = True
            self._acked_pos = 0
            self._stored_pos = 0
            welcome = event.welcome
            self._note(Opened, epoch=welcome.epoch, head_pos=welcome.head_pos)
        elif kind == "accepted":
            self._accepted(event.accepted)
        elif kind == "rejected":
            self._rejected(event.rejected)
        elif kind == "deliver":
            self._deliver(event.deliver)
        elif kind == "caught_up":
            self._note(CaughtUp, pos=event.caught_up.pos)
        elif kind == "receipt":
            self._receipt(event.receipt)
        elif kind == "read_recorded":
            recorded = event.read_recorded
            if self._reads.get(recorded.user_id, 0) <= recorded.up_to_seq:
                self._reads.pop(recorded.user_id, None)

    def _accepted(self, accepted: send_pb2.Accepted) -> None:
        self._queue.pop(accepted.client_message_id, None)
        self._note(
            Answered,
            client_id=accepted.client_message_id,
            message_id=accepted.message_id,
            seq=accepted.seq,
            accepted_at=accepted.accepted_at.ToNanoseconds() / 1e9,
        )

    def _rejected(self, rejected: send_pb2.Rejected) -> None:
        retry_after = None
        outgoing = self._queue.get(rejected.client_message_id)
        if rejected.HasField("retry_after"):
            retry_after = rejected.retry_after.ToTimedelta().total_seconds()
            if outgoing is not None:
                outgoing.is_on_the_way = False
                outgoing.retry_at = time.monotonic() + retry_after
                asyncio.get_running_loop().call_later(retry_after + 0.001, self._wake.set)
        else:
            self._queue.pop(rejected.client_message_id, None)
        self._note(
            Refused,
            client_id=rejected.client_message_id,
            reason=name_of(rejected.reason),
            retry_after=retry_after,
        )

    def _deliver(self, envelope: envelope_pb2.Envelope) -> None:
        self._stored_pos = envelope.pos
        self._note(
            Received,
            peer=self._history.name_of(envelope.user_id),
            seq=envelope.seq,
            message_id=envelope.message_id,
            sender=self._history.name_of(envelope.sender_user_id),
            body=envelope.ciphertext,
            accepted_at=envelope.accepted_at.ToNanoseconds() / 1e9,
            pos=envelope.pos,
        )
        if not self._chance.randrange(_READS_ONE_IN):
            self._reads[envelope.user_id] = envelope.seq

    def _receipt(self, receipt: receipt_pb2.Receipt) -> None:
        self._version = max(self._version, receipt.version)
        self._note(
            Receipted,
            version=receipt.version,
            peer=self._history.name_of(receipt.user_id),
            delivered=tuple((part.first, part.last) for part in receipt.delivered),
            read_up_to=receipt.read_up_to,
        )

    async def _write(self, call: Any) -> None:
        hello = gateway_pb2.Hello(client="phone", after_receipts=self._version)
        frame = gateway_pb2.ConnectRequest(events=[gateway_pb2.DeviceEvent(hello=hello)])
        try:
            while True:
                if frame.events:
                    await call.write(frame)
                if self._closing:
                    await call.done_writing()
                    return
                await self._wake.wait()
                self._wake.clear()
                frame = self._frame()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the reader learns why

    def _frame(self) -> gateway_pb2.ConnectRequest:
        """All that may be said now."""
        frame = gateway_pb2.ConnectRequest()
        if not self._is_open:
            return frame
        if self._stored_pos > self._acked_pos and self.is_acking:
            self._acked_pos = self._stored_pos
            frame.events.add().ack.up_to_pos = self._acked_pos
            self._note(Acked, up_to_pos=self._acked_pos)
        for peer, seq in self._reads.items():
            if self._said_reads.get(peer, 0) < seq:
                self._said_reads[peer] = seq
                frame.events.add().read.CopyFrom(receipt_pb2.Read(user_id=peer, up_to_seq=seq))
                self._note(Read, peer=self._history.name_of(peer), up_to_seq=seq)
        for outgoing, after in self._due():
            frame.events.add().send.CopyFrom(self._send(outgoing, after))
        return frame

    def _due(self) -> list[tuple[Outgoing, bytes]]:
        """The sends that may go now, each with the send before it that is not answered yet."""
        free = self._window - sum(one.is_on_the_way for one in self._queue.values())
        now = time.monotonic()
        before: dict[bytes, bytes] = {}
        due = []
        for outgoing in self._queue.values():
            if free <= 0:
                break
            if not outgoing.is_on_the_way and outgoing.retry_at <= now:
                due.append((outgoing, before.get(outgoing.to, b"")))
                free -= 1
            before[outgoing.to] = outgoing.client_id
        return due

    def _send(self, outgoing: Outgoing, after: bytes) -> send_pb2.Send:
        outgoing.is_on_the_way = True
        if outgoing.tried is None:
            outgoing.tried = time.time()
        self._note(
            Tried,
            client_id=outgoing.client_id,
            to=self._history.name_of(outgoing.to),
            body=outgoing.body,
            number=outgoing.number,
        )
        return a_send(
            outgoing.to, outgoing.body, id_=outgoing.client_id, after=after, tried=outgoing.tried
        )

    def _note(self, kind: type[Any], **facts: Any) -> None:
        self._history.add(kind(at=self._history.now(), who=self.name, **facts))
