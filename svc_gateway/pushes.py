"""What the message service says unasked, on its way to the session it concerns."""

from collections.abc import Callable
from typing import Any

from svc_gateway import to_device
from svc_gateway.attach import Attachment
from svc_gateway.sessions import Sessions
from svc_gateway.stream import Session
from whimbrel.message.v1 import attach_pb2


class Pushes:
    """Finds the session of a push, or answers that it is not here."""

    def __init__(self, sessions: Sessions, *, on_lost: Callable[[], None]) -> None:
        self._sessions = sessions
        self._on_lost = on_lost

    def push(self, event: attach_pb2.MessageEvent, attachment: Attachment) -> None:
        kind = event.WhichOneof("event")
        if kind is None or kind not in _TAKE:  # from a newer service: a hint that we do not know
            return
        push = getattr(event, kind)
        device = push.device
        address = device.user_id, device.device_id
        stream = self._sessions.find(address)
        if stream is None:
            attachment.not_here(address)
        else:
            _TAKE[kind](stream.session, push)

    def attachment_broke(self) -> None:
        self._on_lost()


def _deliver(session: Session, push: attach_pb2.PushDelivery) -> None:
    session.push_delivery(push.envelope)


def _receipt(session: Session, push: attach_pb2.PushReceipt) -> None:
    session.push_receipt(push.receipt)


def _doorbell(session: Session, push: attach_pb2.PushDoorbell) -> None:
    session.doorbell(head_pos=push.head_pos, receipt_version=push.receipt_version)


def _end(session: Session, push: attach_pb2.PushEnd) -> None:
    session.end_below(push.below_epoch, to_device.reason_name(push.reason))


_TAKE: dict[str, Callable[[Session, Any], None]] = {
    "deliver": _deliver,
    "receipt": _receipt,
    "doorbell": _doorbell,
    "end": _end,
}
