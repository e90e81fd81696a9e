"""Fills the frames for a gateway: model objects in, protobuf out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from svc_message.groups.requests import GroupMessage
from svc_message.model import URGENT, Refusal
from svc_message.requests import Copy, Mismatch
from svc_message.results import Place, ReceiptRow
from whimbrel.error.v1 import reason_pb2
from whimbrel.message.v1 import attach_pb2, envelope_pb2, receipt_pb2, send_pb2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REASONS: Mapping[str, Any] = {
    name.removeprefix("ERROR_REASON_"): number for name, number in reason_pb2.ErrorReason.items()
}


def fill_time(into: Timestamp, at: datetime) -> None:
    """Write a moment; a third of what FromDatetime costs."""
    since = at - _EPOCH
    into.seconds = since.days * 86400 + since.seconds
    into.nanos = since.microseconds * 1000


def fill_span(into: Duration, span: timedelta) -> None:
    """Write a span."""
    into.FromTimedelta(span)


def fill_accepted(
    into: send_pb2.Accepted, client_message_id: bytes, message_id: bytes, seq: int, at: datetime
) -> None:
    """Write where a message stands."""
    into.client_message_id = client_message_id
    into.message_id = message_id
    into.seq = seq
    fill_time(into.accepted_at, at)


def fill_refusal(into: send_pb2.Rejected | attach_pb2.Refused, refusal: Refusal) -> None:
    """Write why something was not done."""
    into.reason = _REASONS[refusal.reason]
    into.metadata.update(refusal.metadata)
    if refusal.retry_after is not None:
        fill_span(into.retry_after, refusal.retry_after)


def fill_mismatch(
    into: send_pb2.DeviceMismatch, client_message_id: bytes, mismatch: Mismatch
) -> None:
    """Write which devices a send should have named."""
    into.client_message_id = client_message_id
    for field, devices in (
        (into.missing, mismatch.missing),
        (into.extra, mismatch.extra),
        (into.stale, mismatch.stale),
    ):
        for user_id, device_id in devices:
            field.add(user_id=user_id, device_id=device_id)


def fill_copy(into: envelope_pb2.Envelope, copy: Copy, place: Place) -> None:
    """Write a copy that was just put into a queue."""
    into.pos = place.pos
    into.message_id = copy.message_id
    into.user_id = copy.peer_id
    into.seq = copy.seq
    into.sender_user_id = copy.sender_id
    into.sender_device_id = copy.sender_device_id
    fill_time(into.accepted_at, copy.accepted_at)
    body = copy.body_for(place.device_id)
    into.type = _type(body.type)
    into.ciphertext = body.ciphertext


def fill_message(into: envelope_pb2.Envelope, message: GroupMessage) -> None:
    """Write a group's message as every device gets it, without a pos."""
    into.message_id = message.message_id
    into.group_id = message.group_id
    into.seq = message.seq
    into.sender_user_id = message.sender_id
    into.sender_device_id = message.sender_device_id
    fill_time(into.accepted_at, message.accepted_at)
    into.type = _type(message.type)
    into.ciphertext = message.body


def fill_row(into: envelope_pb2.Envelope, row: Any) -> None:
    """Write a row of a queue."""
    into.pos = row["pos"]
    into.message_id = row["message_id"]
    if row["is_group"]:
        into.group_id = row["peer_id"]
    else:
        into.user_id = row["peer_id"]
    into.seq = row["seq"]
    into.sender_user_id = row["sender_id"]
    into.sender_device_id = row["sender_device_id"]
    fill_time(into.accepted_at, row["accepted_at"])
    into.type = _type(row["type"])
    into.ciphertext = row["ciphertext"]


def _type(stored: int) -> send_pb2.CiphertextType.ValueType:
    return send_pb2.CiphertextType.ValueType(stored & ~URGENT)


def fill_receipt(into: receipt_pb2.Receipt, row: ReceiptRow) -> None:
    """Write a receipt."""
    into.version = row.version
    if row.tallies is not None:
        into.group_id = row.peer_id
        for seq, delivered_to, read_by in row.tallies:
            into.tallies.add(seq=seq, delivered_to=delivered_to, read_by=read_by)
        return
    into.user_id = row.peer_id
    into.read_up_to = row.read_up_to
    fill_ranges(into, row.delivered)


def fill_ranges(into: receipt_pb2.Receipt, delivered: Sequence[Any]) -> None:
    """Write ranges of seqs, whose upper bound Postgres does not include."""
    for part in delivered:
        into.delivered.add(first=part.lower, last=part.upper - 1)
