"""Reads a `Send` to a group into what its accept lanes take."""

import hashlib
from datetime import datetime
from typing import Any

from mesh.ids import new_ulid, slot_of
from svc_message.groups.requests import GroupSend
from svc_message.model import Refusal
from svc_message.sending import (
    DAY,
    MOST_BODY_BYTES,
    bad_field,
    bad_id,
    bad_time,
    media_ids_of,
    stored_type,
)
from whimbrel.message.v1 import send_pb2

_TYPES = (send_pb2.CIPHERTEXT_TYPE_PLAIN, send_pb2.CIPHERTEXT_TYPE_SENDER_KEY)


def read_group_send(
    send: send_pb2.Send, sender_id: bytes, sender_device_id: int, now: datetime, origin: Any
) -> GroupSend | Refusal:
    """The send of a device, ready to be queued; `done` is still to be set."""
    refusal = bad_id(send, send.group_id) or _bad_body(send) or bad_time(send, now)
    if refusal is not None:
        return refusal
    body = send.shared
    return GroupSend(
        slot=slot_of(send.group_id),
        done=lambda _send, _result: None,
        origin=origin,
        group_id=send.group_id,
        sender_id=sender_id,
        sender_device_id=sender_device_id,
        client_message_id=send.client_message_id,
        after=send.after,
        day=send.first_tried_at.seconds // DAY % 10,
        digest=hashlib.sha256(
            b"group" + send.group_id + bytes([body.type]) + body.ciphertext
        ).digest(),
        message_id=new_ulid(),
        revision=send.revision,
        device_epoch=send.device_epoch,
        type=stored_type(send, body),
        body=body.ciphertext,
        media_ids=media_ids_of(send),
    )


def _bad_body(send: send_pb2.Send) -> Refusal | None:
    if send.HasField("per_device"):
        return bad_field("bodies", "a shared body to a group")
    if not send.shared.ciphertext:
        return Refusal("BODY_EMPTY")
    if len(send.shared.ciphertext) > MOST_BODY_BYTES:
        return Refusal("BODY_TOO_LARGE", {"allowed": str(MOST_BODY_BYTES)})
    if send.shared.type not in _TYPES:
        return bad_field("type", "PLAIN or SENDER_KEY to a group")
    return None
