"""A device as raw gRPC that keeps every rule of the protocol and checks that the mesh does too.

It acks at once and cumulatively, names `after` and `first_tried_at` as a device must, repeats what
was refused for now, and fails on anything lost, doubled, out of order or refused for good.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2
from whimbrel_cli.bench.plan import Person
from whimbrel_cli.stack.services import client_channel

_CONNECT = "/whimbrel.gateway.v1.GatewayService/Connect"
# A connection of its own, as a phone has.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
_COUNTER_BYTES = 8
_HELLO = gateway_pb2.ConnectRequest(
    events=[gateway_pb2.DeviceEvent(hello=gateway_pb2.Hello(client="whimbrel-bench"))]
).SerializeToString()


class Broken(Exception):
    """The mesh did what it must not."""


@dataclass(slots=True)
class Sent:
    """A message whose receipt has not come."""

    send: send_pb2.Send
    at: float
    seq: int = 0  # once it is accepted


@dataclass(slots=True)
class Chat:
    """One conversation as this device sees it."""

    peer: bytes
    sent: int = 0
    accepted: int = 0
    received: int = 0
    last_seq: int = 0
    unanswered: dict[bytes, Sent] = field(default_factory=dict)  # in the order of sending
    undelivered: list[Sent] = field(default_factory=list)  # accepted, by seq
    delivered: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_settled(self) -> bool:
        """Whether every message has its answer and its receipt."""
        return not self.unanswered and not self.undelivered


class Device:
    """The only stream there ever is of a fresh account's device, on a channel of its own."""

    def __init__(self, person: Person, address: str, *, payload_bytes: int, ca: str = "") -> None:
        self.user_id = person.user_id
        self.chats: dict[bytes, Chat] = {}
        self.on_delivered: Callable[[Device, Chat], None] | None = None
        self.on_accepted: Callable[[Device, Chat], None] | None = None
        self.on_done: Callable[[Device, Chat, float], None] | None = None
        self.retries = 0
        self.is_caught_up = asyncio.Event()
        self._token = person.token
        self._address = address
        self._ca = Path(ca) if ca else None
        self._padding = os.urandom(max(0, payload_bytes - _COUNTER_BYTES))
        self._by_client_id: dict[bytes, Chat] = {}
        self._last_pos = 0
        self._last_version = 0
        self._server_ahead = 0.0
        self._outgoing = gateway_pb2.ConnectRequest()
        self._is_writing = False
        self._acks = 0  # the greatest pos to ack with the next frame
        self._channel: Any = None
        self._call: Any = None

    async def open(self) -> None:
        """Connect and say hello; returns when the session is open."""
        self._channel = client_channel(self._address, self._ca, _OPTIONS)
        self._call = self._channel.stream_stream(_CONNECT)(
            metadata=(("authorization", f"Bearer {self._token}"),)
        )
        await self._call.write(_HELLO)
        first = await self._read()
        if first is None or first.events[0].WhichOneof("event") != "welcome":
            raise Broken(f"no welcome but {first}")
        welcome = first.events[0].welcome
        self._server_ahead = welcome.server_time.ToNanoseconds() / 1e9 - time.monotonic()
        await self._take(first, skip=1)

    async def run(self) -> None:
        """Read until the stream ends; all that follows from a frame goes out in one."""
        while (frame := await self._read()) is not None:
            await self._take(frame)

    async def close(self) -> None:
        """End the stream as a device does: half-close, then read the status."""
        await self._call.done_writing()
        status = await self._call.code()
        await self._channel.close()
        if status is not grpc.StatusCode.OK:
            raise Broken(f"the stream ended with {status}: {await self._call.details()}")

    def chat(self, peer: bytes) -> Chat:
        """The conversation with a peer."""
        if peer not in self.chats:
            self.chats[peer] = Chat(peer)
        return self.chats[peer]

    def send(self, chat: Chat) -> None:
        """Put the conversation's next message into the next frame."""
        chat.sent += 1
        send = self._outgoing.events.add().send
        send.client_message_id = os.urandom(16)
        send.user_id = chat.peer
        if chat.unanswered:
            send.after = next(reversed(chat.unanswered))
        now = time.monotonic()
        seconds = now + self._server_ahead
        send.first_tried_at.seconds = int(seconds)
        send.first_tried_at.nanos = int(seconds % 1 * 1e6) * 1000
        send.shared.type = send_pb2.CIPHERTEXT_TYPE_PLAIN
        send.shared.ciphertext = chat.sent.to_bytes(_COUNTER_BYTES, "big") + self._padding
        chat.unanswered[send.client_message_id] = Sent(send, now)
        self._by_client_id[send.client_message_id] = chat

    async def flush(self) -> None:
        """Write what waits, unless somebody is at it: then that one goes on to write it."""
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._outgoing.events:
                frame, self._outgoing = self._outgoing, gateway_pb2.ConnectRequest()
                await self._call.write(frame.SerializeToString())
        finally:
            self._is_writing = False

    async def _read(self) -> gateway_pb2.ConnectResponse | None:
        encoded = await self._call.read()
        if encoded is grpc.aio.EOF:
            return None
        return gateway_pb2.ConnectResponse.FromString(encoded)

    async def _take(self, frame: gateway_pb2.ConnectResponse, skip: int = 0) -> None:
        for event in frame.events[skip:]:
            kind = event.WhichOneof("event")
            if kind == "deliver":
                self._on_deliver(event.deliver)
            elif kind == "accepted":
                self._on_accepted(event.accepted)
            elif kind == "receipt":
                self._on_receipt(event.receipt)
            elif kind == "rejected":
                self._on_rejected(event.rejected)
            elif kind == "caught_up":
                self.is_caught_up.set()
            else:
                raise Broken(f"the mesh said {event}")
        if self._acks:
            self._outgoing.events.add().ack.up_to_pos = self._acks
            self._acks = 0
        if self._outgoing.events:
            await self.flush()

    def _on_deliver(self, envelope: envelope_pb2.Envelope) -> None:
        if envelope.pos != self._last_pos + 1:
            raise Broken(f"pos {envelope.pos} after {self._last_pos}")
        self._last_pos = self._acks = envelope.pos
        chat = self.chat(envelope.user_id)
        if envelope.seq <= chat.last_seq:
            raise Broken(f"seq {envelope.seq} after {chat.last_seq}")
        chat.last_seq = envelope.seq
        chat.received += 1
        counted = int.from_bytes(envelope.ciphertext[:_COUNTER_BYTES], "big")
        if counted != chat.received:
            raise Broken(f"message {counted} of a peer came as its number {chat.received}")
        if self.on_delivered is not None:
            self.on_delivered(self, chat)

    def _on_accepted(self, accepted: send_pb2.Accepted) -> None:
        chat = self._by_client_id.pop(accepted.client_message_id, None)
        if chat is None:
            raise Broken("accepted twice, or never sent")
        sent = chat.unanswered.pop(accepted.client_message_id)
        chat.accepted += 1
        sent.seq = accepted.seq
        if chat.undelivered and chat.undelivered[-1].seq >= sent.seq:
            raise Broken(f"seq {sent.seq} was given after {chat.undelivered[-1].seq}")
        chat.undelivered.append(sent)
        if chat.delivered:
            self._settle(chat)
        if self.on_accepted is not None:
            self.on_accepted(self, chat)

    def _on_rejected(self, rejected: send_pb2.Rejected) -> None:
        chat = self._by_client_id.get(rejected.client_message_id)
        reason = reason_pb2.ErrorReason.Name(rejected.reason)
        if chat is None or not rejected.HasField("retry_after"):
            raise Broken(f"refused for good: {reason}")
        self.retries += 1
        wait = rejected.retry_after.ToTimedelta().total_seconds()
        sent = chat.unanswered[rejected.client_message_id]
        asyncio.get_running_loop().call_later(wait, self._repeat, sent)

    def _repeat(self, sent: Sent) -> None:
        self._outgoing.events.add().send.CopyFrom(sent.send)
        repeating = asyncio.ensure_future(self.flush())
        repeating.add_done_callback(lambda done: done.cancelled() or done.result())

    def _on_receipt(self, receipt: receipt_pb2.Receipt) -> None:
        if receipt.version <= self._last_version:
            raise Broken(f"receipt {receipt.version} after {self._last_version}")
        self._last_version = receipt.version
        chat = self.chat(receipt.user_id)
        chat.delivered = [(part.first, part.last) for part in receipt.delivered]
        self._settle(chat)

    def _settle(self, chat: Chat) -> None:
        """Finish what the receipt covers; nearly always the front of what waits."""
        waiting: list[Sent] = []
        finished: list[Sent] = []
        for sent in chat.undelivered:
            covered = any(first <= sent.seq <= last for first, last in chat.delivered)
            (finished if covered else waiting).append(sent)
        if not finished:
            return
        chat.undelivered = waiting
        if self.on_done is not None:
            now = time.monotonic()
            for sent in finished:
                self.on_done(self, chat, now - sent.at)
