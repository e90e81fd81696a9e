"""The events of a device's stream, each encoded as a frame of one."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from svc_gateway.sides import SessionLimits
from svc_gateway.window import KIB, MOST_BODY_BYTES
from whimbrel.channel.v1 import post_pb2
from whimbrel.error.v1 import reason_pb2
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import envelope_pb2, receipt_pb2, send_pb2
from whimbrel.presence.v1 import state_pb2

MOST_FRAME_BYTES = 256 * KIB


def welcome(
    *, epoch: int, head_pos: int, max_unacked: int, server_time: datetime, limits: SessionLimits
) -> bytes:
    """The session is open."""
    frame = gateway_pb2.ConnectResponse()
    event = frame.events.add().welcome
    event.epoch, event.head_pos = epoch, head_pos
    event.server_time.FromDatetime(server_time)
    event.limits.max_unacked = max_unacked
    event.limits.max_outstanding_sends = limits.max_outstanding_sends
    event.limits.max_outstanding_bytes = limits.max_outstanding_bytes
    event.limits.max_body_bytes = MOST_BODY_BYTES
    event.limits.max_frame_bytes = MOST_FRAME_BYTES
    return frame.SerializeToString()


def accepted(answer: send_pb2.Accepted) -> bytes:
    """A send is durable."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().accepted.CopyFrom(answer)
    return frame.SerializeToString()


def rejected(answer: send_pb2.Rejected) -> bytes:
    """A send was not accepted."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().rejected.CopyFrom(answer)
    return frame.SerializeToString()


def device_mismatch(answer: send_pb2.DeviceMismatch) -> bytes:
    """A send names other devices than it must."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().device_mismatch.CopyFrom(answer)
    return frame.SerializeToString()


def group_changed(answer: send_pb2.GroupChanged) -> bytes:
    """A send was made for a group that has changed."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().group_changed.CopyFrom(answer)
    return frame.SerializeToString()


def refusal(
    client_message_id: bytes,
    reason: str,
    metadata: Mapping[str, str],
    retry_after: timedelta | None = None,
) -> bytes:
    """A rejection of our own."""
    answer = send_pb2.Rejected(
        client_message_id=client_message_id, reason=reason_value(reason), metadata=metadata
    )
    if retry_after is not None:
        answer.retry_after.FromTimedelta(retry_after)
    return rejected(answer)


def deliver(envelope: envelope_pb2.Envelope) -> bytes:
    """A message."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().deliver.CopyFrom(envelope)
    return frame.SerializeToString()


def caught_up(pos: int) -> bytes:
    """Nothing from before is left."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().caught_up.pos = pos
    return frame.SerializeToString()


def receipt(change: receipt_pb2.Receipt) -> bytes:
    """What has become of messages."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().receipt.CopyFrom(change)
    return frame.SerializeToString()


def read_recorded(read: receipt_pb2.Read) -> bytes:
    """A read is durable."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().read_recorded.CopyFrom(read)
    return frame.SerializeToString()


def low_prekeys(one_time_prekeys: int, one_time_kem_prekeys: int) -> bytes:
    """One-time keys run out."""
    frame = gateway_pb2.ConnectResponse()
    event = frame.events.add().low_prekeys
    event.one_time_prekeys, event.one_time_kem_prekeys = one_time_prekeys, one_time_kem_prekeys
    return frame.SerializeToString()


def group_news(news: send_pb2.GroupNews) -> bytes:
    """A group has changed."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().group_news.CopyFrom(news)
    return frame.SerializeToString()


def presence(presence: state_pb2.Presence) -> bytes:
    """Whether somebody is online."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().presence.CopyFrom(presence)
    return frame.SerializeToString()


def writing(notice: state_pb2.TypingNotice) -> bytes:
    """Somebody writes."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().writing.CopyFrom(notice)
    return frame.SerializeToString()


def watch_refused(reason: str, allowed: int) -> bytes:
    """Chats are not watched."""
    frame = gateway_pb2.ConnectResponse()
    event = frame.events.add().watch_refused
    event.reason, event.allowed = reason_value(reason), allowed
    return frame.SerializeToString()


def channel_post(post: post_pb2.Post) -> bytes:
    """A post of a channel."""
    frame = gateway_pb2.ConnectResponse()
    frame.events.add().channel_post.CopyFrom(post)
    return frame.SerializeToString()


def channel_heads(heads: Mapping[bytes, int]) -> bytes:
    """Where channels stand."""
    frame = gateway_pb2.ConnectResponse()
    event = frame.events.add().channel_heads
    for channel_id, head_seq in heads.items():
        event.heads.add(channel_id=channel_id, head_seq=head_seq)
    return frame.SerializeToString()


def go_away(reason: str, reconnect_after: timedelta | None) -> bytes:
    """The last event."""
    frame = gateway_pb2.ConnectResponse()
    event = frame.events.add().go_away
    event.reason = reason_value(reason)
    if reconnect_after is not None:
        event.reconnect_after.FromTimedelta(reconnect_after)
    return frame.SerializeToString()


def reason_value(reason: str) -> reason_pb2.ErrorReason.ValueType:
    """The wire form of a reason."""
    return reason_pb2.ErrorReason.Value(f"{_PREFIX}{reason}")


def reason_name(value: reason_pb2.ErrorReason.ValueType) -> str:
    """The reason without its prefix; one that is newer than this code is INTERNAL to us."""
    try:
        return reason_pb2.ErrorReason.Name(value).removeprefix(_PREFIX)
    except ValueError:
        return "INTERNAL"


_PREFIX = "ERROR_REASON_"
