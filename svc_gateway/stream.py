"""One device's stream: turns its events into calls of its session, and the session's into events.

It decides nothing: what follows from what is the session's business.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError

from mesh.bounds import checker_of
from mesh.errors import Unauthenticated
from svc_gateway import to_device
from svc_gateway.conversation import direct, group
from svc_gateway.edge import Device, Edge
from svc_gateway.ends import SessionEnd, SessionTokenInvalid
from svc_gateway.limits import wants_of_send
from svc_gateway.reads import Peer
from svc_gateway.sending import flaw_of
from svc_gateway.service_link import ServiceLink, Session, peer_of
from svc_gateway.session import Phase
from svc_gateway.ticks import StreamTicks
from svc_gateway.traces import StreamTraces
from svc_gateway.writer import Context, FrameWriter
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2

_BRIEFLY = timedelta(seconds=1)
# The rest is looked at by hand, three times as fast: see `sending`, and the bounds' own test.
_HELLO = checker_of(gateway_pb2.Hello.DESCRIPTOR)
_READ = checker_of(receipt_pb2.Read.DESCRIPTOR)
_CHATS = checker_of(gateway_pb2.ChatList.DESCRIPTOR)
_TYPING = checker_of(gateway_pb2.Typing.DESCRIPTOR)


class DeviceStream:
    """The device's side of one session, and both directions of its stream."""

    __slots__ = (
        "_edge",
        "_has_half_closed",
        "_is_watched",
        "_lacked_room",
        "_resume",
        "_writer",
        "device",
        "service",
        "session",
        "ticks",
        "traces",
    )

    def __init__(self, device: Device, edge: Edge) -> None:
        self.device = device
        self._edge = edge
        self.ticks = None if edge.ticks is None else StreamTicks(edge.ticks)
        self.traces = None if edge.traces is None else StreamTraces(edge.traces)
        self._resume: asyncio.Future[None] | None = None
        self._has_half_closed = self._is_watched = self._lacked_room = False
        self._writer: FrameWriter  # there is one from `run` on
        self.service = ServiceLink(self, device, edge)
        self.session = Session(self, self.service, edge.limits, edge.budget)

    async def run(self, context: Context) -> None:
        """Serve the stream until either side ends it; raises what it ended for."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._writer = FrameWriter(
                    context,
                    tasks,
                    patience=self._edge.ticks_to_write,
                    on_written=self._on_written,
                )
                await self._read(context)
        finally:
            self.session.close()
            if self.traces is not None:
                self.traces.close()

    def tick(self) -> bool:
        """A second has passed; False when there is nothing to watch."""
        is_session_busy = self.session.tick()
        is_writer_busy = self._writer.tick()
        has_reads = self.service.tick()
        self._is_watched = is_session_busy or is_writer_busy or has_reads
        return self._is_watched

    async def _read(self, context: Context) -> None:
        session = self.session
        while not session.is_ended:
            encoded: Any = await context.read()
            if encoded is grpc.aio.EOF:
                await self._finish()
                return
            for event in self._events_of(encoded):
                kind = event.WhichOneof("event")
                if kind != "send" or not await self._is_limited(event.send):
                    self._TAKE[kind](self, event)
                if session.is_opening:
                    await self._paused()
                if session.is_ended:
                    return
            while self._is_crowded and not session.is_ended:
                self._lacked_room = True
                await self._paused()

    async def _finish(self) -> None:
        """The device has nothing more to say: answer what it has asked."""
        self._has_half_closed = True
        self.session.retire()
        while not self.session.is_ended:
            await self._paused()

    def _events_of(self, encoded: bytes) -> Iterable[gateway_pb2.DeviceEvent]:
        try:
            events: Sequence[gateway_pb2.DeviceEvent]
            events = gateway_pb2.ConnectRequest.FromString(encoded).events
        except DecodeError:
            events = ()
        if not events:
            self.session.violate("a frame without events, or not a frame at all")
        return events

    async def _paused(self) -> None:
        self._resume = asyncio.get_running_loop().create_future()
        await self._resume

    def go_on(self) -> None:
        if self._resume is not None and not self._resume.done():
            self._resume.set_result(None)

    def _on_written(self) -> None:
        self._edge.tally.frames += 1
        if self._lacked_room and not self._is_crowded:
            self._lacked_room = False
            self.session.room()
            self.go_on()

    @property
    def _is_crowded(self) -> bool:
        return self._writer.is_crowded or self.service.is_crowded

    def opened(self) -> None:
        if self.session.phase is Phase.OPEN:
            self._edge.sessions.opened(self)
        self.go_on()

    # What the device says.

    def _on_hello(self, event: gateway_pb2.DeviceEvent) -> None:
        hello = event.hello
        if hello.max_unacked > self._edge.limits.max_unacked or _HELLO.violation(hello) is not None:
            self.session.violate("a hello out of bounds")
            return
        self.session.hello(max_unacked=hello.max_unacked, after_receipts=hello.after_receipts)

    def _on_send(self, event: gateway_pb2.DeviceEvent) -> None:
        send = event.send
        if self.session.phase is not Phase.OPEN:
            self._out_of_place()
            return
        self._edge.failpoints.hit("send.received")
        flaw = flaw_of(send)
        if flaw is not None:
            self._refuse(send, *flaw)
            return
        chat = group(send.group_id) if send.group_id else direct(self.device.user_id, send.user_id)
        id_, frame = self.service.send_frame(chat, send)
        if not self.session.sends.has_room(len(frame)):
            self._refuse(send, "TOO_MANY_OUTSTANDING", {}, _BRIEFLY)
        elif not self._edge.attach.has_room:
            self._refuse(send, "OVERLOADED", {}, _BRIEFLY)
        else:
            self.session.sends.take(len(frame))
            self.service.send(chat, id_, frame)

    async def _is_limited(self, send: send_pb2.Send) -> bool:
        """Whether a limit refuses the send: the device was told so then."""
        if self.session.phase is not Phase.OPEN:
            return False
        wants = wants_of_send(
            self.device.address, send.user_id or send.group_id, max(1, send.ByteSize())
        )
        refused = await self._edge.limiter.take(wants)
        if refused is None:
            return False
        if not self.session.is_ended:
            self._refuse(send, "RATE_LIMITED", {"limit": refused.limit}, refused.retry_after)
        return True

    def _on_ack(self, event: gateway_pb2.DeviceEvent) -> None:
        if self.session.phase is Phase.HELLO:
            self._out_of_place()
        elif not self.session.ack(event.ack.up_to_pos):
            self._edge.tally.ignored_acks += 1

    def _on_read(self, event: gateway_pb2.DeviceEvent) -> None:
        read = event.read
        if self.session.phase is not Phase.OPEN:
            self._out_of_place()
        elif _READ.violation(read) is not None:
            self.session.violate("a read of no conversation")
        else:
            self.service.read(peer_of(read), read.up_to_seq)

    def _on_reauthenticate(self, event: gateway_pb2.DeviceEvent) -> None:
        if self.session.phase is Phase.HELLO:
            self._out_of_place()
            return
        token = event.reauthenticate.token
        try:
            self.device = self._edge.authenticator.renewed(self.device, token)
        except Unauthenticated:
            self.session.end(SessionTokenInvalid("the next token is not good for this device"))

    def _on_watch(self, event: gateway_pb2.DeviceEvent) -> None:
        peers = self._chats(event.watch)
        if peers:
            self._edge.presences.watch(self, peers)

    def _on_unwatch(self, event: gateway_pb2.DeviceEvent) -> None:
        peers = self._chats(event.unwatch)
        if peers:
            self._edge.presences.unwatch(self, peers)

    def _chats(self, chats: gateway_pb2.ChatList) -> list[Peer]:
        """The chats of an event; none if the session is not open, or ends for them."""
        if self.session.phase is not Phase.OPEN:
            self._out_of_place()
            return []
        peers = [("user_id", id_) for id_ in chats.user_ids]
        peers += [("group_id", id_) for id_ in chats.group_ids]
        if not peers or _CHATS.violation(chats) is not None:
            self.session.violate("a list of chats without any, or with an id of another length")
            return []
        return peers

    def _on_writing(self, event: gateway_pb2.DeviceEvent) -> None:
        writing = event.writing
        if self.session.phase is not Phase.OPEN:
            self._out_of_place()
            return
        if _TYPING.violation(writing) is not None:
            self.session.violate("writing in no chat, or an activity that is not known")
        else:
            kind = writing.WhichOneof("chat") or "user_id"
            peer = kind, getattr(writing, kind)
            self._edge.presences.writing(self, peer, writing.activity)

    def _on_nothing(self, event: gateway_pb2.DeviceEvent) -> None:
        self.session.violate("an event without content")

    def _out_of_place(self) -> None:
        # While the instance is taken down, sends are left for the next stream.
        if self.session.phase is Phase.HELLO:
            self.session.violate("an event before hello")

    # What the session wants of the device.

    def welcome(
        self, *, epoch: int, head_pos: int, max_unacked: int, server_time: datetime
    ) -> None:
        self.say(
            to_device.welcome(
                epoch=epoch,
                head_pos=head_pos,
                max_unacked=max_unacked,
                server_time=server_time,
                limits=self._edge.limits,
            )
        )

    def deliver(self, envelope: envelope_pb2.Envelope) -> None:
        self._edge.failpoints.hit("deliver.before_write")
        self._edge.tally.deliveries += 1
        if self.traces is not None:
            self.traces.delivered(
                envelope.pos, envelope.message_id, envelope.sender_user_id, envelope.group_id
            )
        if self.ticks is not None:
            kind = "group_id" if envelope.group_id else "user_id"
            at = envelope.accepted_at.seconds + envelope.accepted_at.nanos / 1e9
            self.ticks.delivered(envelope.pos, (kind, getattr(envelope, kind)), envelope.seq, at)
        self.say(to_device.deliver(envelope))

    def caught_up(self, pos: int) -> None:
        self.say(to_device.caught_up(pos))

    def receipt(self, receipt: receipt_pb2.Receipt) -> None:
        self.say(to_device.receipt(receipt))

    def hint(self, frame: bytes) -> bool:
        """An event that nothing depends on, passed on while there is room; False if it is not."""
        if self.session.phase is not Phase.OPEN or not self.has_room():
            return False
        self.say(frame)
        return True

    def end(self, end: SessionEnd) -> None:
        self._edge.tally.ended("" if self._has_half_closed else end.reason)
        if self._has_half_closed:
            self._writer.finish(None)
        else:
            self.say(to_device.go_away(end.reason, end.retry_after))
            self._writer.finish(end)
        self.go_on()

    def has_room(self) -> bool:
        self._lacked_room = self._lacked_room or self._is_crowded
        return not self._lacked_room

    def watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._edge.sessions.watch(self)

    def say(self, frame: bytes) -> None:
        self._writer.put(frame)
        if not self._is_watched:  # a write that never ends must be noticed
            self.watch()

    def _refuse(
        self,
        send: send_pb2.Send,
        reason: str,
        metadata: dict[str, str],
        retry_after: timedelta | None = None,
    ) -> None:
        self.say(to_device.refusal(send.client_message_id, reason, metadata, retry_after))

    _TAKE: ClassVar[
        Mapping[str | None, Callable[["DeviceStream", gateway_pb2.DeviceEvent], None]]
    ] = {
        "hello": _on_hello,
        "send": _on_send,
        "ack": _on_ack,
        "read": _on_read,
        "reauthenticate": _on_reauthenticate,
        "watch": _on_watch,
        "unwatch": _on_unwatch,
        "writing": _on_writing,
        None: _on_nothing,
    }
