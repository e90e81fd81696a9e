"""Rows of the local store as what the application sees."""

import struct
from collections.abc import Iterable
from typing import Any

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.message.v1 import send_pb2
from whimbrel_client.model import (
    Mark,
    Message,
    Outcome,
    OutgoingMessage,
    Receipt,
    SendState,
    moment,
)
from whimbrel_client.ranges import SeqRanges

Row = tuple[Any, ...]

RECEIPT = """
SELECT version, conversation, peer, delivered, read_up_to FROM receipt
WHERE conversation = ? AND peer = ?
"""

_PLAIN = send_pb2.CIPHERTEXT_TYPE_PLAIN


def packed(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Ranges as pairs of 64-bit little-endian numbers."""
    bounds = [bound for pair in ranges for bound in pair]
    return struct.pack(f"<{len(bounds)}Q", *bounds)


def unpacked(pairs: bytes) -> SeqRanges:
    """The ranges behind the pairs."""
    return SeqRanges((first, last) for first, last in struct.iter_unpack("<QQ", pairs))


def receipt_of(row: Row) -> Receipt:
    """From version, conversation, peer, delivered, read_up_to."""
    version, conversation, peer, delivered, read_up_to = row
    return Receipt(version, conversation, peer, unpacked(delivered), read_up_to)


def message_of(row: Row) -> Message:
    """From the columns of a message, in the order of the table."""
    *place, accepted_at, ciphertext_type, ciphertext, content, mark = row
    cursor, conversation, seq, message_id, sender, sender_device = place
    return Message(
        cursor=cursor,
        conversation=conversation,
        seq=seq,
        message_id=message_id,
        sender=sender,
        sender_device=sender_device,
        accepted_at=moment(accepted_at),
        content=None if content is None else Content.FromString(content),
        ciphertext=ciphertext,
        is_encrypted=ciphertext_type != _PLAIN,
        mark=Mark(mark),
    )


def outgoing_of(row: Row) -> OutgoingMessage:
    """From id, conversation, client_message_id, content, mark and the columns of the outcome."""
    local_id, conversation, client_message_id, content, mark, *outcome = row
    return OutgoingMessage(
        local_id,
        conversation,
        client_message_id=client_message_id,
        content=None if content is None else Content.FromString(content),
        mark=Mark(mark),
        outcome=None if outcome[0] == SendState.WAITING else outcome_of(tuple(outcome)),
    )


def outcome_of(row: Row) -> Outcome:
    """From state, message_id, seq, accepted_at, reason."""
    state, message_id, seq, accepted_at, reason = row
    accepted = None if accepted_at is None else moment(accepted_at)
    return Outcome(SendState(state), message_id, seq, accepted, reason)
