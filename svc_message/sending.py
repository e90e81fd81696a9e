"""Reads a `Send` into what the accept lanes take, and says what is wrong with a bad one."""

import hashlib
import struct
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mesh.ids import ID_BYTES, new_ulid, parse_ulid, slot_of
from svc_message.conversations import direct_conversation
from svc_message.model import URGENT, Refusal
from svc_message.requests import EVERY_DEVICE, Body, SendRequest
from whimbrel.message.v1 import send_pb2

MOST_BODY_BYTES = 192 * 1024
_OLDEST = timedelta(days=7).total_seconds()
_EARLIEST = timedelta(hours=1).total_seconds()
DAY = 86400
_MOST_BODIES = 20
_MOST_MEDIA_IDS = 10
_MOST_DEVICE_ID = 127
_TYPES = frozenset(send_pb2.CiphertextType.values()) - {
    send_pb2.CIPHERTEXT_TYPE_UNSPECIFIED,
    send_pb2.CIPHERTEXT_TYPE_SENDER_KEY,
}
_NAME = struct.Struct(">BIB")


def read_send(
    send: send_pb2.Send, sender_id: bytes, sender_device_id: int, now: datetime, origin: Any
) -> SendRequest | Refusal:
    """The send of a device, ready to be queued; `done` is still to be set."""
    refusal = _refusal(send, sender_id, now)
    if refusal is not None:
        return refusal
    conversation_id, slot = direct_conversation(sender_id, send.user_id)
    is_shared = send.HasField("shared")
    bodies, own_bodies = _bodies(send)
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
        day=send.first_tried_at.seconds // DAY % 10,
        digest=_digest(send),
        message_id=new_ulid(),
        bodies=bodies,
        own_bodies=own_bodies,
        is_shared=is_shared,
        media_ids=media_ids_of(send),
    )


def _bodies(send: send_pb2.Send) -> tuple[list[Body], list[Body]]:
    """The bodies for the recipient, and those for the sender's other devices."""
    if send.HasField("shared"):
        return [Body(EVERY_DEVICE, 0, stored_type(send, send.shared), send.shared.ciphertext)], []
    bodies: list[Body] = []
    own_bodies: list[Body] = []
    for named in send.per_device.bodies:
        is_own = named.user_id != send.user_id  # nobody is rung for what they have said themselves
        kind = named.type if is_own else stored_type(send, named)
        body = Body(named.device_id, named.registration_id, kind, named.ciphertext)
        (own_bodies if is_own else bodies).append(body)
    return bodies, own_bodies


def stored_type(send: send_pb2.Send, body: send_pb2.SharedBody | send_pb2.DeviceBody) -> int:
    """How a body is to be read, and whether a person wants to be rung for it."""
    return body.type | URGENT if send.urgent else body.type


def _refusal(send: send_pb2.Send, sender_id: bytes, now: datetime) -> Refusal | None:
    return bad_id(send, send.user_id) or _bad_bodies(send, sender_id) or bad_time(send, now)


def bad_id(send: send_pb2.Send, to: bytes) -> Refusal | None:
    """Which id of the send is none."""
    if len(send.client_message_id) != ID_BYTES:
        return bad_field("client_message_id", "16 bytes")
    if len(to) != ID_BYTES:
        return bad_field("to", "a user_id or a group_id of 16 bytes")
    if send.after and len(send.after) != ID_BYTES:
        return bad_field("after", "16 bytes, or empty")
    if send.media_ids and not _are_media_ids(send.media_ids):
        return bad_field("media_ids", f"at most {_MOST_MEDIA_IDS}, as the media service gave them")
    return None


def media_ids_of(send: send_pb2.Send) -> Sequence[bytes]:
    """The objects that the send refers to; `bad_id` has looked at them."""
    return [parse_ulid(one) for one in send.media_ids] if send.media_ids else ()


def _are_media_ids(media_ids: Sequence[str]) -> bool:
    try:
        return len({parse_ulid(one) for one in media_ids}) <= _MOST_MEDIA_IDS
    except ValueError:
        return False


def _bad_bodies(send: send_pb2.Send, sender_id: bytes) -> Refusal | None:
    bodies = send.per_device.bodies or [send.shared]
    sizes = [len(body.ciphertext) for body in bodies]
    if not all(sizes):
        return Refusal("BODY_EMPTY")
    if sum(sizes) > MOST_BODY_BYTES:
        return Refusal("BODY_TOO_LARGE", {"allowed": str(MOST_BODY_BYTES)})
    if any(body.type not in _TYPES for body in bodies):
        return bad_field("type", "PLAIN, RATCHET or PREKEY to a person")
    return _bad_names(send, sender_id)


def _bad_names(send: send_pb2.Send, sender_id: bytes) -> Refusal | None:
    named = [(body.user_id, body.device_id) for body in send.per_device.bodies]
    if len(named) > _MOST_BODIES or len(set(named)) < len(named):
        return bad_field("per_device", f"at most {_MOST_BODIES} bodies, no device twice")
    if any(user_id not in (send.user_id, sender_id) for user_id, _ in named):
        return bad_field("per_device.user_id", "the recipient or the sender")
    if any(not 1 <= device_id <= _MOST_DEVICE_ID for _, device_id in named):
        return bad_field("per_device.device_id", f"1 to {_MOST_DEVICE_ID}")
    return None


def bad_time(send: send_pb2.Send, now: datetime) -> Refusal | None:
    """Why the send is too old, or too far ahead, to be taken."""
    age = now.timestamp() - send.first_tried_at.seconds
    if -_EARLIEST <= age <= _OLDEST:
        return None
    return Refusal("RETRY_TOO_OLD", {"server_time": now.isoformat()})


def _digest(send: send_pb2.Send) -> bytes:
    digest = hashlib.sha256(b"user" + send.user_id)
    if send.HasField("shared"):
        digest.update(bytes([send.shared.type]) + send.shared.ciphertext)
    for body in send.per_device.bodies:
        digest.update(body.user_id + _NAME.pack(body.device_id, body.registration_id, body.type))
        digest.update(len(body.ciphertext).to_bytes(4, "big") + body.ciphertext)
    return digest.digest()


def bad_field(name: str, allowed: str) -> Refusal:
    """A field is missing, malformed or out of bounds."""
    return Refusal("FIELD_INVALID", {"field": name, "allowed": allowed})


def _nobody(_send: SendRequest, _result: Any) -> None:
    raise AssertionError("a send was queued without anybody to answer")
