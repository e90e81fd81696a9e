"""What the message service says unasked, on its way to the session it concerns."""

from collections.abc import Callable

from svc_gateway import to_device
from svc_gateway.attach import Attachment
from svc_gateway.sessions import Sessions
from svc_gateway.stream import DeviceStream
from whimbrel.message.v1 import attach_pb2


class Pushes:
    """Finds the session of a push, or answers that it is not here."""

    def __init__(self, sessions: Sessions, *, on_lost: Callable[[], None]) -> None:
        self._sessions = sessions
        self._on_lost = on_lost

    def push(self, event: attach_pb2.MessageEvent, attachment: Attachment) -> None:
        kind = event.WhichOneof("event")
        if kind is None or kind not in _KINDS:
            return  # from a newer message service: a hint that we do not know
        device = getattr(event, kind).device
        address = device.user_id, device.device_id
        if kind == "end":
            end = event.end
            self._sessions.end_below(address, end.below_epoch, to_device.reason_name(end.reason))
            return
        stream = self._sessions.find(address)
        if stream is None:
            attachment.not_here(address)
        else:
            _TAKE[kind](stream, event)

    def attachment_broke(self) -> None:
        self._on_lost()


def _deliver(stream: DeviceStream, event: attach_pb2.MessageEvent) -> None:
    stream.session.push_delivery(event.deliver.envelope)


def _receipt(stream: DeviceStream, event: attach_pb2.MessageEvent) -> None:
    stream.session.push_receipt(event.receipt.receipt)


def _doorbell(stream: DeviceStream, event: attach_pb2.MessageEvent) -> None:
    doorbell = event.doorbell
    stream.session.doorbell(head_pos=doorbell.head_pos, receipt_version=doorbell.receipt_version)


def _low_prekeys(stream: DeviceStream, event: attach_pb2.MessageEvent) -> None:
    low = event.low_prekeys
    stream.low_prekeys(low.one_time_prekeys, low.one_time_kem_prekeys)


_TAKE: dict[str, Callable[[DeviceStream, attach_pb2.MessageEvent], None]] = {
    "deliver": _deliver,
    "receipt": _receipt,
    "doorbell": _doorbell,
    "low_prekeys": _low_prekeys,
}
_KINDS = frozenset((*_TAKE, "end"))
