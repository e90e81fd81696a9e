"""A session's way to the message service: asks, and tells the session what is answered.

It decides nothing: what follows from an answer is the session's business, or the device's.
"""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import ClassVar, Protocol

from mesh.ids import slot_of
from svc_gateway import session, to_device, to_service
from svc_gateway.attach import Request
from svc_gateway.conversation import Conversation, direct, group
from svc_gateway.edge import Device, Edge
from svc_gateway.reads import Peer, Reads
from svc_gateway.ticks import StreamTicks
from svc_gateway.traces import StreamTraces
from whimbrel.message.v1 import attach_pb2, envelope_pb2, receipt_pb2, send_pb2

_MOST_READS = 500

Session = session.Session[envelope_pb2.Envelope, receipt_pb2.Receipt]


class Stream(Protocol):
    """The device's side, as far as answers concern it."""

    session: Session
    ticks: StreamTicks | None
    traces: StreamTraces | None

    def say(self, frame: bytes) -> None:
        """Write a frame of one event to the device, in its turn."""

    def opened(self) -> None:
        """The session is open, or it is over."""

    def go_on(self) -> None:
        """Read on, if it was a lack of room that kept the device waiting."""

    def watch(self) -> None:
        """Tick until there is nothing to wait for."""


class ServiceLink:
    """What one session has asked, and the answers on their way back."""

    __slots__ = ("_device", "_edge", "_reads", "_stream", "slot")

    def __init__(self, stream: Stream, device: Device, edge: Edge) -> None:
        self._stream = stream
        self._device = device
        self._edge = edge
        self._reads: Reads | None = None  # an idle session has read nothing lately
        self.slot = slot_of(device.user_id)

    @property
    def is_over(self) -> bool:
        return self._stream.session.is_ended

    @property
    def is_crowded(self) -> bool:
        """Whether so many reads wait that the device should."""
        return self._reads is not None and len(self._reads) >= _MOST_READS

    def tick(self) -> bool:
        """Ask again for the reads that were refused for now; False if none are left."""
        if not self._reads:
            return False
        for peer in self._reads.waiting():
            self._ask_read(peer, self._reads.next(peer))
        return True

    # What is asked.

    def open(self) -> None:
        id_, version = self._edge.attach.new_id(), self._device.credential_version
        self._ask(id_, to_service.open_session(id_, self._device.address, version))

    def ack(self, up_to_pos: int) -> None:
        id_ = self._edge.attach.new_id()
        self._edge.failpoints.hit("ack.before_forward")
        traces = self._stream.traces
        traced = traces.acked(up_to_pos) if traces is not None else ()
        self._ask(id_, to_service.ack(id_, self._device.address, up_to_pos, traced))

    def fetch_page(self, after_pos: int, *, max_envelopes: int, max_bytes: int) -> None:
        id_ = self._edge.attach.new_id()
        frame = to_service.fetch_page(
            id_,
            self._device.address,
            after_pos=after_pos,
            max_envelopes=max_envelopes,
            max_bytes=max_bytes,
        )
        self._ask(id_, frame)

    def fetch_receipts(self, after_version: int, *, max_receipts: int) -> None:
        id_ = self._edge.attach.new_id()
        user_id, most = self._device.user_id, max_receipts
        self._ask(id_, to_service.fetch_receipts(id_, user_id, after_version, most))

    def send_frame(self, chat: Conversation, send: send_pb2.Send) -> tuple[int, bytes]:
        """A send as it would be asked, with its id: its size decides whether it may be."""
        id_ = self._edge.attach.new_id()
        traces = self._edge.traces
        trace = traces.sent(id_) if traces is not None else b""
        return id_, to_service.send(id_, self._device.address, chat, send, trace)

    def send(self, chat: Conversation, id_: int, frame: bytes) -> None:
        self._edge.failpoints.hit("send.before_forward")
        self._edge.attach.ask(Request(id_, chat.slot, frame, self))

    def read(self, peer: Peer, up_to_seq: int) -> None:
        """A person has read: of each conversation the greatest seq is asked for, one at a time."""
        if self._reads is None:
            self._reads = Reads()
        self._ask_read(peer, self._reads.want(peer, up_to_seq))

    def _ask_read(self, peer: Peer, up_to_seq: int | None) -> None:
        if up_to_seq is None:
            return
        id_ = self._edge.attach.new_id()
        kind, name = peer
        read = receipt_pb2.Read(up_to_seq=up_to_seq)
        setattr(read, kind, name)
        chat = group(name) if read.group_id else direct(self._device.user_id, name)
        address = self._device.address
        self._ask(id_, to_service.read(id_, address, chat.conversation_id, read))

    def _ask(self, id_: int, frame: bytes) -> None:
        self._edge.attach.ask(Request(id_, self.slot, frame, self))

    # What is answered.

    def answered(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        """Take an answer, also when the stream is over by now."""
        if not self._stream.session.is_ended:
            self._ANSWERED[answer.WhichOneof("event")](self, request, answer)

    def _on_opened(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        opened = answer.opened
        if self._stream.ticks is not None:
            at = opened.server_time
            self._stream.ticks.opened(at.seconds + at.nanos / 1e9)
        self._stream.session.opened(
            epoch=opened.epoch,
            head_pos=opened.head_pos,
            acked_pos=opened.acked_pos,
            receipt_version=opened.receipt_version,
            server_time=opened.server_time.ToDatetime(UTC),
        )
        self._stream.opened()

    def _on_accepted(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._edge.failpoints.hit("accepted.before_device")
        if self._edge.ticks is not None:
            self._edge.ticks.accepted(request.since)
        if self._edge.traces is not None:
            self._edge.traces.answered(request.id, "accepted", answer.accepted.message_id)
        self._stream.say(to_device.accepted(answer.accepted))
        self._stream.session.send_answered(len(request.frame))

    def _on_rejected(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._refused(request, "rejected")
        self._stream.say(to_device.rejected(answer.rejected))
        self._stream.session.send_answered(len(request.frame))

    def _on_device_mismatch(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._refused(request, "device_mismatch")
        self._stream.say(to_device.device_mismatch(answer.device_mismatch))
        self._stream.session.send_answered(len(request.frame))

    def _on_group_changed(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        self._refused(request, "group_changed")
        self._stream.say(to_device.group_changed(answer.group_changed))
        self._stream.session.send_answered(len(request.frame))

    def _refused(self, request: Request, answer: str) -> None:
        if self._edge.traces is not None:
            self._edge.traces.answered(request.id, answer)

    def _on_acked(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        if self._stream.traces is not None:
            self._stream.traces.recorded(answer.acked.acked_pos)
        if self._stream.ticks is not None:
            self._stream.ticks.acked(answer.acked.acked_pos)
        self._stream.session.ack_recorded(answer.acked.acked_pos)

    def _on_page(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        page = answer.page
        if self._stream.traces is not None:
            for one in page.traces:
                self._stream.traces.coming(one.pos, one.trace, was_away=True)
        self._stream.session.page(
            page.envelopes, head_pos=page.head_pos, acked_pos=page.acked_pos, cut=page.cut
        )

    def _on_receipts(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        page = answer.receipts
        self._stream.session.receipts(page.receipts, receipt_version=page.receipt_version)

    def _on_read_recorded(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        if self._reads is None:
            return
        read = to_service.asked_by(request.frame).read.read
        peer = peer_of(read)
        self._reads.recorded(peer)
        if self._stream.ticks is not None:
            self._stream.ticks.read(peer, read.up_to_seq)
        self._stream.say(to_device.read_recorded(read))
        self._ask_read(peer, self._reads.next(peer))
        self._stream.go_on()

    def _on_refused(self, request: Request, answer: attach_pb2.MessageEvent) -> None:
        asked, refused = to_service.asked_by(request.frame), answer.refused
        is_final = not refused.HasField("retry_after")
        if asked.HasField("read"):
            if self._reads is not None:
                self._reads.refused(peer_of(asked.read.read), is_final=is_final)
                self._stream.watch()
            return
        self._stream.session.refused(
            to_service.kind_of(asked),
            to_device.reason_name(refused.reason),
            None if is_final else refused.retry_after.ToTimedelta(),
        )

    _ANSWERED: ClassVar[
        Mapping[str | None, Callable[["ServiceLink", Request, attach_pb2.MessageEvent], None]]
    ] = {
        "opened": _on_opened,
        "accepted": _on_accepted,
        "rejected": _on_rejected,
        "device_mismatch": _on_device_mismatch,
        "group_changed": _on_group_changed,
        "acked": _on_acked,
        "read_recorded": _on_read_recorded,
        "page": _on_page,
        "receipts": _on_receipts,
        "refused": _on_refused,
    }


def peer_of(read: receipt_pb2.Read) -> Peer:
    """The conversation that is read, as the device names it."""
    kind = read.WhichOneof("conversation") or "user_id"
    return kind, getattr(read, kind)
