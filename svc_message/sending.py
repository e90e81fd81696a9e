"""Reads a `Send` into what the accept lanes take, and says what is wrong with a bad one."""

import hashlib
from datetime import datetime, timedelta
from typing import Any

from mesh.ids import ID_BYTES, new_ulid, slot_of
from svc_message.conversations import direct_conversation
from svc_message.model import Refusal
from svc_message.requests import SendRequest
from whimbrel.message.v1 import send_pb2

MOST_BODY_BYTES = 192 * 1024
_OLDEST = timedelta(days=7).total_seconds()
_EARLIEST = timedelta(hours=1).total_seconds()
_DAY = 86400


def read_send(
    send: send_pb2.Send, sender_id: bytes, sender_device_id: int, now: datetime, origin: Any
) -> SendRequest | Refusal:
    """The send of a device, ready to be queued; `done` is still to be set."""
    refusal = _refusal(send, now)
    if refusal is not None:
        return refusal
    conversation_id, slot = direct_conversation(sender_id, send.user_id)
    body = send.shared
    return SendRequest(
        slot=slot,
        done=_nobody,
        origin=origin,
        conversation_id=conversation_id,
        sender_id=sender_id,
        sender_device_id=sender_device_id,
        recipient_id=send.user_id,
        recipient_slot=slot_of(send.user_id),
        client_message_id=send.client_message_id,
        after=send.after,
        day=send.first_tried_at.seconds // _DAY % 10,
        digest=_digest(send.user_id, body),
        message_id=new_ulid(),
        type=body.type,
        ciphertext=body.ciphertext,
    )


def _refusal(send: send_pb2.Send, now: datetime) -> Refusal | None:
    return _bad_id(send) or _bad_body(send.shared) or _bad_time(send, now)


def _bad_id(send: send_pb2.Send) -> Refusal | None:
    if len(send.client_message_id) != ID_BYTES:
        return _bad_field("client_message_id", "16 bytes")
    if len(send.user_id) != ID_BYTES:
        return _bad_field("to", "a user_id of 16 bytes")
    if send.after and len(send.after) != ID_BYTES:
        return _bad_field("after", "16 bytes, or empty")
    return None


def _bad_body(body: send_pb2.SharedBody) -> Refusal | None:
    size = len(body.ciphertext)
    if not size:
        return Refusal("BODY_EMPTY")
    if size > MOST_BODY_BYTES:
        return Refusal("BODY_TOO_LARGE", {"allowed": str(MOST_BODY_BYTES)})
    if body.type != send_pb2.CIPHERTEXT_TYPE_PLAIN:
        return _bad_field("shared.type", "CIPHERTEXT_TYPE_PLAIN")
    return None


def _bad_time(send: send_pb2.Send, now: datetime) -> Refusal | None:
    age = now.timestamp() - send.first_tried_at.seconds
    if -_EARLIEST <= age <= _OLDEST:
        return None
    return Refusal("RETRY_TOO_OLD", {"server_time": now.isoformat()})


def _digest(recipient_id: bytes, body: send_pb2.SharedBody) -> bytes:
    return hashlib.sha256(b"user" + recipient_id + bytes([body.type]) + body.ciphertext).digest()


def _bad_field(name: str, allowed: str) -> Refusal:
    return Refusal("FIELD_INVALID", {"field": name, "allowed": allowed})


def _nobody(_send: SendRequest, _result: Any) -> None:
    raise AssertionError("a send was queued without anybody to answer")
