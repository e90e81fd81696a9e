"""What the message service says unasked, on its way to the session it concerns."""

from collections.abc import Callable
from typing import Any

from svc_gateway import to_device
from svc_gateway.attach import Attachment
from svc_gateway.sessions import Sessions
from svc_gateway.stream import DeviceStream
from whimbrel.message.v1 import attach_pb2


class Pushes:
    """Finds the session of a push, or answers that it is not here."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        on_lost: Callable[[], None],
        on_channel: Callable[[str, Any, bytes], None],
    ) -> None:
        """`on_channel` takes what concerns channels, with its kind and where its trace stands."""
        self._sessions = sessions
        self._on_channel = on_channel
        self._on_lost = on_lost

    def push(self, event: attach_pb2.MessageEvent, attachment: Attachment) -> None:
        kind = event.WhichOneof("event")
        if kind is None or kind not in _KINDS:
            return  # from a newer message service: a hint that we do not know
        push = getattr(event, kind)
        if kind == "run":
            self._run(push, attachment)
            return
        if kind == "group_news":
            self._group_news(push)
            return
        if kind in _OF_CHANNELS:
            self._on_channel(kind, push, event.trace)
            return
        device = push.device
        address = device.user_id, device.device_id
        if kind == "end":
            self._sessions.end_below(address, push.below_epoch, to_device.reason_name(push.reason))
            return
        stream = self._sessions.find(address)
        if stream is None:
            attachment.not_here(address)
        else:
            _TAKE[kind](stream, push)

    def attachment_broke(self) -> None:
        self._on_lost()

    def _run(self, push: attach_pb2.PushRun, attachment: Attachment) -> None:
        for place in push.places:
            address = place.device.user_id, place.device.device_id
            stream = self._sessions.find(address)
            if stream is None:
                attachment.not_here(address)
                continue
            if stream.traces is not None:
                for one in place.traces:
                    stream.traces.coming(one.pos, one.trace, was_away=False)
            pos = place.first_pos
            for envelope in push.envelopes:
                sender = envelope.sender_user_id, envelope.sender_device_id
                if envelope.seq >= place.first_seq and sender != address:
                    envelope.pos = pos
                    stream.session.push_delivery(envelope)
                    pos += 1

    def _group_news(self, push: attach_pb2.PushGroupNews) -> None:
        frame = to_device.group_news(push.news)
        for device in push.devices:
            stream = self._sessions.find((device.user_id, device.device_id))
            if stream is not None:
                stream.hint(frame)


def _deliver(stream: DeviceStream, push: attach_pb2.PushDelivery) -> None:
    if push.trace and stream.traces is not None:
        stream.traces.coming(push.envelope.pos, push.trace, was_away=False)
    stream.session.push_delivery(push.envelope)


def _receipt(stream: DeviceStream, push: attach_pb2.PushReceipt) -> None:
    stream.session.push_receipt(push.receipt)
    if push.traces and stream.traces is not None:
        stream.traces.told(push.traces)


def _doorbell(stream: DeviceStream, push: attach_pb2.PushDoorbell) -> None:
    stream.session.doorbell(head_pos=push.head_pos, receipt_version=push.receipt_version)


def _low_prekeys(stream: DeviceStream, push: attach_pb2.PushLowPrekeys) -> None:
    stream.hint(to_device.low_prekeys(push.one_time_prekeys, push.one_time_kem_prekeys))


_TAKE: dict[str, Callable[[DeviceStream, Any], None]] = {
    "deliver": _deliver,
    "receipt": _receipt,
    "doorbell": _doorbell,
    "low_prekeys": _low_prekeys,
}
_OF_CHANNELS = frozenset(("channel_post", "channel_heads", "subscription"))
_KINDS = frozenset((*_TAKE, *_OF_CHANNELS, "end", "run", "group_news"))
