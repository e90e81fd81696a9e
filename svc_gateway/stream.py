"""One device's stream: turns its events into calls of its session, and the session's into events.

It also is the session's way to the message service. It decides nothing: what follows from what is
the session's business.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError

from mesh.errors import Unauthenticated
from mesh.ids import ID_BYTES, slot_of
from svc_gateway import session, to_device, to_service
from svc_gateway.attach import Request
from svc_gateway.conversation import direct
from svc_gateway.edge import Device, Edge
from svc_gateway.ends import SessionEnd, SessionTokenInvalid
from svc_gateway.reads import Reads
from svc_gateway.sending import flaw_of
from svc_gateway.session import Phase
from svc_gateway.writer import Context, FrameWriter
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import attach_pb2, envelope_pb2, receipt_pb2, send_pb2

_MOST_READS = 500
_MOST_CLIENT_NAME = 64
_BRIEFLY = timedelta(seconds=1)


Session = session.Session[envelope_pb2.Envelope, receipt_pb2.Receipt]


class DeviceStream:
    """The port of one session, and both directions of its stream."""

    __slots__ = (
        "_edge",
        "_has_half_closed",
        "_is_watched",
        "_lacked_room",
        "_reads",
        "_resume",
        "_writer",
        "device",
        "session",
        "slot",
    )

    def __init__(self, device: Device, edge: Edge) -> None:
        self.device = device
        self._edge = edge
        self.slot = slot_of(device.user_id)
        self._reads: Reads | None = None
        self._resume: asyncio.Future[None] | None = None
        self._has_half_closed = self._is_watched = self._lacked_room = False
        self._writer: FrameWriter  # there is one from `run` on
        self.session: Session = session.Session(self, edge.limits, edge.budget)

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

    def tick(self) -> bool:
        """A second has passed; False when there is nothing to watch."""
        is_session_busy = self.session.tick()
        is_writer_busy = self._writer.tick()
        if self._reads:
            self._ask_reads(self._reads)
        self._is_watched = is_session_busy or is_writer_busy or bool(self._reads)
        return self._is_watched

    async def _read(self, context: Context) -> None:
        mine = self.session
        while not mine.is_ended:
            encoded: Any = await context.read()
            if encoded is grpc.aio.EOF:
                await self._finish()
                return
            for event in self._events_of(encoded):
                self._TAKE[event.WhichOneof("event")](self, event)
                if mine.is_opening:
                    await self._paused()
                if mine.is_ended:
                    return
            while self._is_crowded and not mine.is_ended:
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

    def _continue(self) -> None:
        if self._resume is not None and not self._resume.done():
            self._resume.set_result(None)

    def _on_written(self) -> None:
        self._edge.tally.frames += 1
        if self._lacked_room and not self._is_crowded:
            self._lacked_room = False
            self.session.room()
            self._continue()

    @property
    def _is_crowded(self) -> bool:
        return self._writer.is_crowded or (
            self._reads is not None and len(self._reads) >= _MOST_READS
        )

    # What the device says.

    def _on_hello(self, event: gateway_pb2.DeviceEvent) -> None:
        hello = event.hello
        if (
            hello.max_unacked > self._edge.limits.max_unacked
            or len(hello.client) > _MOST_CLIENT_NAME
        ):
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
        chat = direct(self.device.user_id, send.user_id)
        id_ = self._edge.attach.new_id()
        frame = to_service.send(id_, self.device.address, chat, send)
        if not self.session.sends.has_room(len(frame)):
            self._refuse(send, "TOO_MANY_OUTSTANDING", {}, _BRIEFLY)
        elif not self._edge.attach.has_room:
            self._refuse(send, "OVERLOADED", {}, _BRIEFLY)
        else:
            self.session.sends.take(len(frame))
            self._edge.failpoints.hit("send.before_forward")
            self._edge.attach.ask(Request(id_, chat.slot, frame, self))

    def _on_ack(self, event: gateway_pb2.DeviceEvent) -> None:
        if self.session.phase is Phase.HELLO:
            self._out_of_place()
        elif not self.session.ack(event.ack.up_to_pos):
            self._edge.tally.ignored_acks += 1

    def _on_read(self, event: gateway_pb2.DeviceEvent) -> None:
        read = event.read
        if self.session.phase is not Phase.OPEN:
            self._out_of_place()
        elif len(read.user_id) != ID_BYTES:
            self.session.violate("a read of no conversation")
        else:
            if self._reads is None:
                self._reads = Reads()
            up_to_seq = self._reads.want(read.user_id, read.up_to_seq)
            if up_to_seq is not None:
                self._ask_read(read.user_id, up_to_seq)

    def _on_reauthenticate(self, event: gateway_pb2.DeviceEvent) -> None:
        if self.session.phase is Phase.HELLO:
            self._out_of_place()
            return
        token = event.reauthenticate.token
        try:
            self.device = self._edge.authenticator.renewed(self.device, token)
        except Unauthenticated:
            self.session.end(SessionTokenInvalid("the next token is not good for this device"))

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
        self._put(
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
        self._put(to_device.deliver(envelope))

    def caught_up(self, pos: int) -> None:
        self._put(to_device.caught_up(pos))

    def receipt(self, receipt: receipt_pb2.Receipt) -> None:
        self._put(to_device.receipt(receipt))

    def low_prekeys(self, one_time_prekeys: int, one_time_kem_prekeys: int) -> None:
        """A hint of the message service, passed on while there is room."""
        if self.session.phase is Phase.OPEN and self.has_room():
            self._put(to_device.low_prekeys(one_time_prekeys, one_time_kem_prekeys))

    def end(self, end: SessionEnd) -> None:
        self._edge.tally.ended("" if self._has_half_closed else end.reason)
        if self._has_half_closed:
            self._writer.finish(None)
        else:
            self._put(to_device.go_away(end.reason, end.retry_after))
            self._writer.finish(end)
        self._continue()

    def has_room(self) -> bool:
        self._lacked_room = self._lacked_room or self._is_crowded
        return not self._lacked_room

    def watch(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._edge.sessions.watch(self)

    def _put(self, frame: bytes) -> None:
        self._writer.put(frame)
        if not self._is_watched:  # a write that never ends must be noticed
            self.watch()

    # What the session wants of the message service.

    def open(self) -> None:
        id_, version = self._edge.attach.new_id(), self.device.credential_version
        self._ask(id_, to_service.open_session(id_, self.device.address, version))

    def ack(self, up_to_pos: int) -> None:
        id_ = self._edge.attach.new_id()
        self._edge.failpoints.hit("ack.before_forward")
        self._ask(id_, to_service.ack(id_, self.device.address, up_to_pos))

    def fetch_page(self, after_pos: int, *, max_envelopes: int, max_bytes: int) -> None:
        id_ = self._edge.attach.new_id()
        frame = to_service.fetch_page(
            id_,
            self.device.address,
            after_pos=after_pos,
            max_envelopes=max_envelopes,
            max_bytes=max_bytes,
        )
        self._ask(id_, frame)

    def fetch_receipts(self, after_version: int, *, max_receipts: int) -> None:
        id_ = self._edge.attach.new_id()
        user_id, most = self.device.user_id, max_receipts
        self._ask(id_, to_service.fetch_receipts(id_, user_id, after_version, most))

    def _ask_reads(self, reads: Reads) -> None:
        for peer_id in reads.waiting():
            up_to_seq = reads.next(peer_id)
            if up_to_seq is not None:
                self._ask_read(peer_id, up_to_seq)

    def _ask_read(self, peer_id: bytes, up_to_seq: int) -> None:
        id_ = self._edge.attach.new_id()
        chat = direct(self.device.user_id, peer_id)
        self._ask(id_, to_service.read(id_, self.device.address, chat, peer_id, up_to_seq))

    def _ask(self, id_: int, frame: bytes) -> None:
        self._edge.attach.ask(Request(id_, self.slot, frame, self))

    # What the message service answers.

    @property
    def is_over(self) -> bool:
        return self.session.is_ended

    def answered(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        """Take an answer, also when the stream is over by now."""
        if not self.session.is_ended:
            self._ANSWERED[answer.WhichOneof("event")](self, request, answer)

    def _on_opened(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        opened = answer.opened
        self.session.opened(
            epoch=opened.epoch,
            head_pos=opened.head_pos,
            acked_pos=opened.acked_pos,
            receipt_version=opened.receipt_version,
            server_time=opened.server_time.ToDatetime(UTC),
        )
        if self.session.phase is Phase.OPEN:
            self._edge.sessions.opened(self)
        self._continue()

    def _on_accepted(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._edge.failpoints.hit("accepted.before_device")
        self._put(to_device.accepted(answer.accepted))
        self.session.send_answered(len(request.frame))

    def _on_rejected(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._put(to_device.rejected(answer.rejected))
        self.session.send_answered(len(request.frame))

    def _on_device_mismatch(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._put(to_device.device_mismatch(answer.device_mismatch))
        self.session.send_answered(len(request.frame))

    def _on_acked(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self.session.ack_recorded(answer.acked.acked_pos)

    def _on_page(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        page = answer.page
        self.session.page(
            page.envelopes, head_pos=page.head_pos, acked_pos=page.acked_pos, cut=page.cut
        )

    def _on_receipts(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        page = answer.receipts
        self.session.receipts(page.receipts, receipt_version=page.receipt_version)

    def _on_read_recorded(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        if self._reads is None:
            return
        peer_id = to_service.asked_by(request.frame).read.read.user_id
        self._put(to_device.read_recorded(peer_id, self._reads.recorded(peer_id)))
        up_to_seq = self._reads.next(peer_id)
        if up_to_seq is not None:
            self._ask_read(peer_id, up_to_seq)
        self._continue()

    def _on_refused(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        asked, refused = to_service.asked_by(request.frame), answer.refused
        is_final = not refused.HasField("retry_after")
        if asked.HasField("read"):
            if self._reads is not None:
                self._reads.refused(asked.read.read.user_id, is_final=is_final)
                self.watch()
            return
        self.session.refused(
            to_service.kind_of(asked),
            to_device.reason_name(refused.reason),
            None if is_final else refused.retry_after.ToTimedelta(),
        )

    def _refuse(
        self,
        send: send_pb2.Send,
        reason: str,
        metadata: dict[str, str],
        retry_after: timedelta | None = None,
    ) -> None:
        self._put(to_device.refusal(send.client_message_id, reason, metadata, retry_after))

    _TAKE: ClassVar[
        Mapping[str | None, Callable[["DeviceStream", gateway_pb2.DeviceEvent], None]]
    ] = {
        "hello": _on_hello,
        "send": _on_send,
        "ack": _on_ack,
        "read": _on_read,
        "reauthenticate": _on_reauthenticate,
        None: _on_nothing,
    }
    _ANSWERED: ClassVar[
        Mapping[str | None, Callable[["DeviceStream", Request, attach_pb2.MessageEvent], None]]
    ] = {
        "opened": _on_opened,
        "accepted": _on_accepted,
        "rejected": _on_rejected,
        "device_mismatch": _on_device_mismatch,
        "acked": _on_acked,
        "read_recorded": _on_read_recorded,
        "page": _on_page,
        "receipts": _on_receipts,
        "refused": _on_refused,
    }
