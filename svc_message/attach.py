"""The Attach stream: one gateway's requests in, their answers and the pushes out."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import structlog

from mesh.bounds import OutOfBounds, Violation, checker_of
from mesh.clock import Clock
from mesh.errors import InvalidArgument
from mesh.ids import slot_of
from svc_message.accepting import Accepting, FirstAnswer
from svc_message.channels.following import Following
from svc_message.groups.accepting import GroupAccepting
from svc_message.groups.requests import GroupSend
from svc_message.groups.sending import read_group_send
from svc_message.groups.tallying import told_row
from svc_message.groups.wire import fill_changes
from svc_message.inbox import Inbox
from svc_message.link import EVENT_BYTES, FRAME_BYTES, GatewayLink
from svc_message.model import Outcome, Refusal
from svc_message.requests import (
    AckRequest,
    HeadRequest,
    OpenRequest,
    PageRequest,
    ReadRequest,
    ReceiptsRequest,
    SendRequest,
)
from svc_message.results import AckResult, PageResult, PlainResult, ReceiptRow
from svc_message.routing import Router
from svc_message.sending import read_send
from svc_message.to_gateway import (
    fill_accepted,
    fill_mismatch,
    fill_receipt,
    fill_refusal,
    fill_row,
    fill_time,
)
from whimbrel.message.v1 import attach_pb2

log = structlog.get_logger(__name__)

R = TypeVar("R", AckResult, PageResult, PlainResult)
_MOST_ROWS = 256
_MOST_RECEIPTS = 500

# Of each kind of event: looking at all kinds of a frame's would cost twice as much.
_VIOLATIONS = {
    field.name: checker_of(field.message_type).violation
    for field in attach_pb2.GatewayEvent.DESCRIPTOR.oneofs_by_name["event"].fields
}
_REFUSED = {
    Outcome.ABOVE_HEAD: Refusal("ACK_ABOVE_HEAD"),
    Outcome.DEVICE_UNKNOWN: Refusal("DEVICE_REVOKED"),
}


def demand_hello(hello: attach_pb2.GatewayHello) -> None:
    """Raise OutOfBounds unless the first event is within its bounds."""
    wrong = _VIOLATIONS["hello"](hello)
    if wrong is not None:
        raise OutOfBounds(wrong.within("events[0].hello"))


class GatewayRequests:
    """Reads one gateway's requests and answers them on its link."""

    def __init__(
        self,
        link: GatewayLink,
        accepting: Accepting,
        groups: GroupAccepting,
        inbox: Inbox,
        router: Router,
        *,
        following: Following,
        clock: Clock,
    ) -> None:
        self._link = link
        self._accepting = accepting
        self._groups = groups
        self._inbox = inbox
        self._router = router
        self._clock = clock
        self._takers: dict[str, Callable[[Any, int], None]] = {
            "open": self._open,
            "send": self._send,
            "ack": self._ack,
            "read": self._read,
            "fetch_page": self._page,
            "fetch_heads": self._heads,
            "fetch_receipts": self._receipts,
            "fetch_subscriptions": partial(following.subscriptions, link),
            "fetch_channel_heads": partial(following.heads, link),
            "not_here": self._not_here,
        }

    def take(self, frame: attach_pb2.AttachRequest) -> None:
        """Queue all that a frame asks; what is out of bounds is answered as such.

        Raises InvalidArgument for what no gateway says, and for what has no answer.
        """
        for place, event in enumerate(frame.events):
            kind = event.WhichOneof("event")
            taker = self._takers.get(kind or "")
            if kind is None or taker is None:
                raise InvalidArgument(
                    "an event that is not allowed here", metadata={"field": str(kind)}
                )
            said = getattr(event, kind)
            wrong = _VIOLATIONS[kind](said)
            if wrong is None:
                taker(said, event.id)
            else:
                self._out_of_bounds(event, kind, wrong.within(kind), place)

    def _out_of_bounds(
        self, event: attach_pb2.GatewayEvent, kind: str, wrong: Violation, place: int
    ) -> None:
        log.error(
            "a gateway's event is out of bounds",
            gateway=self._link.instance_id,
            field=wrong.field,
            allowed=wrong.allowed,
        )
        if not event.id:
            raise OutOfBounds(wrong.within(f"events[{place}]"))
        refusal = Refusal(wrong.reason, {"field": wrong.field, "allowed": wrong.allowed})
        if kind == "send":
            self._reject(event.send.send.client_message_id, event.id, None, refusal)
        else:
            fill_refusal(self._link.event(event.id).refused, refusal)

    def _send(self, message: attach_pb2.DeviceSend, request_id: int) -> None:
        device, now = message.device, self._clock.now()
        read = read_group_send if message.send.WhichOneof("to") == "group_id" else read_send
        send = read(message.send, device.user_id, device.device_id, now, request_id)
        if message.trace and not isinstance(send, Refusal):
            send.traces = (message.trace,)
        if isinstance(send, GroupSend):
            self._groups.accept(send, self._sent)
        elif isinstance(send, Refusal):
            self._reject(message.send.client_message_id, request_id, None, send)
        else:
            self._accepting.accept(send, self._sent)

    def _sent(
        self, send: SendRequest | GroupSend, first: FirstAnswer | None, refusal: Refusal | None
    ) -> None:
        if refusal is not None:
            self._reject(send.client_message_id, send.origin, first, refusal)
        elif first is not None:
            accepted = self._link.event(send.origin).accepted
            fill_accepted(
                accepted, send.client_message_id, first.message_id, first.seq, first.accepted_at
            )
        elif isinstance(send, GroupSend):
            changed = self._link.event(send.origin).group_changed
            changed.client_message_id = send.client_message_id
            if send.changes is not None:
                fill_changes(changed, send.changes)
        elif send.mismatch is not None:
            event = self._link.event(send.origin)
            fill_mismatch(event.device_mismatch, send.client_message_id, send.mismatch)

    def _reject(
        self,
        client_message_id: bytes,
        request_id: int,
        first: FirstAnswer | None,
        refusal: Refusal,
    ) -> None:
        rejected = self._link.event(request_id).rejected
        rejected.client_message_id = client_message_id
        fill_refusal(rejected, refusal)
        if first is not None:
            fill_accepted(
                rejected.first_answer,
                client_message_id,
                first.message_id,
                first.seq,
                first.accepted_at,
            )

    def _open(self, message: attach_pb2.OpenSession, request_id: int) -> None:
        self._inbox.ask(
            OpenRequest(
                slot=slot_of(message.device.user_id),
                done=self._opened,
                origin=request_id,
                user_id=message.device.user_id,
                device_id=message.device.device_id,
                credential_version=message.credential_version,
            )
        )

    def _opened(self, request: OpenRequest, result: PlainResult | Refusal) -> None:
        served = self._served(request.origin, result)
        if served is None:
            return
        row = served.row
        opened = self._link.event(request.origin).opened
        opened.epoch, opened.head_pos, opened.acked_pos = (
            row["epoch"],
            row["head_pos"],
            row["acked_pos"],
        )
        opened.receipt_version = row["receipt_version"] or 0
        fill_time(opened.server_time, row["now"])
        self._router.replace((request.user_id, request.device_id), row["epoch"], self._link)

    def _ack(self, message: attach_pb2.DeviceAck, request_id: int) -> None:
        user_id = message.device.user_id
        self._inbox.ask(
            AckRequest(
                slot=slot_of(user_id),
                done=self._acked,
                origin=request_id,
                user_id=user_id,
                device_id=message.device.device_id,
                up_to_pos=message.up_to_pos,
                traces=[one.trace for one in message.traces],
                authors=[one.author_id for one in message.traces],
                owners=[one.group_id or one.author_id for one in message.traces],
            )
        )

    def _acked(self, request: AckRequest, result: AckResult | Refusal) -> None:
        served = self._served(request.origin, result)
        if served is not None:
            self._link.event(request.origin).acked.acked_pos = served.acked_pos

    def _read(self, message: attach_pb2.DeviceRead, request_id: int) -> None:
        user_id = message.device.user_id
        self._inbox.ask(
            ReadRequest(
                slot=slot_of(user_id),
                done=self._read_done,
                origin=request_id,
                user_id=user_id,
                conversation_id=message.conversation_id,
                # What is read of a group concerns the group.
                author_id=message.read.user_id or message.read.group_id,
                up_to_seq=message.read.up_to_seq,
            )
        )

    def _read_done(self, request: ReadRequest, result: PlainResult | Refusal) -> None:
        if self._served(request.origin, result) is not None:
            self._link.event(request.origin).read_recorded.SetInParent()

    def _page(self, message: attach_pb2.FetchPage, request_id: int) -> None:
        user_id = message.device.user_id
        self._inbox.ask(
            PageRequest(
                slot=slot_of(user_id),
                done=self._paged,
                origin=request_id,
                user_id=user_id,
                device_id=message.device.device_id,
                after_pos=message.after_pos,
                max_envelopes=min(max(message.max_envelopes, 1), _MOST_ROWS),
                max_bytes=min(max(message.max_bytes, 1), FRAME_BYTES),
            )
        )

    def _paged(self, request: PageRequest, result: PageResult | Refusal) -> None:
        served = self._served(request.origin, result)
        if served is None:
            return
        rows = served.rows
        present = [row for row in rows if row["pos"] is not None]
        size = sum(len(row["ciphertext"]) + 2 * EVENT_BYTES for row in present)
        page = self._link.event(request.origin, size + EVENT_BYTES).page
        page.head_pos, page.acked_pos = rows[0]["head_pos"], rows[0]["acked_pos"]
        page.cut = bool(present) and present[-1]["pos"] < page.head_pos
        for row in present:
            fill_row(page.envelopes.add(), row)
            if row["message_id"] in served.traces:
                page.traces.add(pos=row["pos"], trace=served.traces[row["message_id"]])

    def _heads(self, message: attach_pb2.FetchHeads, request_id: int) -> None:
        comparison = _Comparison(self._link, request_id, len(message.devices))
        for device in message.devices:
            self._inbox.ask(
                HeadRequest(
                    slot=slot_of(device.user_id),
                    done=comparison.take,
                    user_id=device.user_id,
                    device_id=device.device_id,
                )
            )

    def _receipts(self, message: attach_pb2.FetchReceipts, request_id: int) -> None:
        self._inbox.ask(
            ReceiptsRequest(
                slot=slot_of(message.user_id),
                done=self._receipts_read,
                origin=request_id,
                user_id=message.user_id,
                after_version=message.after_version,
                max_receipts=min(max(message.max_receipts, 1), _MOST_RECEIPTS),
            )
        )

    def _receipts_read(self, request: ReceiptsRequest, result: PageResult | Refusal) -> None:
        served = self._served(request.origin, result)
        if served is None:
            return
        rows = served.rows
        page = self._link.event(request.origin, EVENT_BYTES * len(rows)).receipts
        page.receipt_version = rows[0]["newest"]
        for row in rows:
            if row["version"] is not None:
                fill_receipt(page.receipts.add(), receipt_row(request.user_id, row))

    def _not_here(self, message: attach_pb2.NotHere, _request_id: int) -> None:
        device = message.device.user_id, message.device.device_id
        if not self._router.forget(device, self._link):
            return
        # What was pushed here is lost; if the device is elsewhere by now, it is told so there.
        self._inbox.ask(
            HeadRequest(
                slot=slot_of(device[0]), done=self._missed, user_id=device[0], device_id=device[1]
            )
        )

    def _missed(self, request: HeadRequest, result: PlainResult | Refusal) -> None:
        if isinstance(result, Refusal) or not result.row["linked"]:
            return
        device = request.user_id, request.device_id
        head_pos, version = result.row["head_pos"], result.row["receipt_version"] or 0
        self._router.ring_elsewhere(device, head_pos, version, not_at=self._link)

    def _served(self, request_id: int, result: R | Refusal) -> R | None:
        """The result, if there is one; else the request is answered with its refusal."""
        refusal = result if isinstance(result, Refusal) else _REFUSED.get(Outcome(result.outcome))
        if refusal is None:
            assert not isinstance(result, Refusal)  # noqa: S101  the type checker cannot see it
            return result
        fill_refusal(self._link.event(request_id).refused, refusal)
        return None


class _Comparison:
    """Gathers the heads of one request; a shard that cannot be read leaves its devices out."""

    def __init__(self, link: GatewayLink, request_id: int, awaited: int) -> None:
        self._link = link
        self._request_id = request_id
        self._awaited = awaited
        self._found: list[tuple[HeadRequest, Any]] = []
        if not awaited:
            self._answer()

    def take(self, request: HeadRequest, result: PlainResult | Refusal) -> None:
        if not isinstance(result, Refusal):
            self._found.append((request, result.row))
        self._awaited -= 1
        if not self._awaited:
            self._answer()

    def _answer(self) -> None:
        heads = self._link.event(self._request_id, EVENT_BYTES * (len(self._found) + 1)).heads
        heads.SetInParent()
        for request, row in self._found:
            head = heads.heads.add()
            head.device.user_id, head.device.device_id = request.user_id, request.device_id
            head.linked = row["linked"]
            if head.linked:
                head.head_pos, head.acked_pos, head.epoch = (
                    row["head_pos"],
                    row["acked_pos"],
                    row["epoch"],
                )
                head.receipt_version = row["receipt_version"] or 0


def receipt_row(user_id: bytes, row: Any) -> ReceiptRow:
    """A receipt as the store read it."""
    if row["is_group"]:
        return told_row(user_id, row["peer_id"], row)
    return ReceiptRow(user_id, row["peer_id"], row["version"], row["delivered"], row["read_up_to"])
