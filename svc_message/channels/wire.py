"""Channels as protobuf: requests read, channels and posts written."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from mesh.errors import InvalidArgument
from mesh.ids import ID_BYTES
from svc_message.channels.model import (
    KEY_BYTES,
    LONGEST_RETENTION,
    MOST_ATTRIBUTE_BYTES,
    MOST_CIPHERTEXT_BYTES,
    MOST_SEALED_BYTES,
    RETENTION,
    SHORTEST_RETENTION,
    Change,
    Channel,
    Post,
    RotateKey,
    SetAdmin,
    SetAttributes,
    SetRetention,
)
from svc_message.to_gateway import fill_span, fill_time
from whimbrel.channel.v1 import channel_pb2, post_pb2

_MOST_VERSION = 2**31 - 1


def read_id(name: str, value: bytes) -> bytes:
    """An id. Raises InvalidArgument."""
    return _of_length(name, value, ID_BYTES)


def read_key(name: str, value: bytes) -> bytes:
    """A key or the hash of one. Raises InvalidArgument."""
    return _of_length(name, value, KEY_BYTES)


def read_attributes(attributes: bytes) -> bytes:
    """Encrypted attributes. Raises InvalidArgument."""
    return _at_most("attributes", attributes, MOST_ATTRIBUTE_BYTES)


def read_sealed_key(sealed_key: bytes) -> bytes:
    """A key that the account's devices alone can read. Raises InvalidArgument."""
    return _at_most("sealed_key", sealed_key, MOST_SEALED_BYTES)


def read_key_version(key_version: int) -> int:
    """A key's version, as far as the store counts: no key gets there."""
    return min(key_version, _MOST_VERSION)


def read_ciphertext(ciphertext: bytes) -> bytes:
    """What a post says. Raises InvalidArgument."""
    if not ciphertext:
        raise _invalid("ciphertext", f"1 to {MOST_CIPHERTEXT_BYTES} bytes")
    return _at_most("ciphertext", ciphertext, MOST_CIPHERTEXT_BYTES)


def read_retention(request: Any) -> timedelta:
    """The field `retention`, or the usual one if it is not set. Raises InvalidArgument."""
    return _retention(request.retention) if request.HasField("retention") else RETENTION


def read_change(request: channel_pb2.ChangeChannelRequest) -> Change:
    """The change that is asked for. Raises InvalidArgument."""
    kind = request.WhichOneof("change")
    if kind is None:
        raise _invalid("change", ", ".join(_READERS))
    return _READERS[kind](getattr(request, kind))


def fill_channel(into: channel_pb2.Channel, channel: Channel) -> None:
    """Write a channel."""
    into.channel_id = channel.channel_id
    into.attributes = channel.attributes
    into.key_version = channel.key_version
    fill_span(into.retention, channel.retention)
    into.head_seq, into.oldest_seq = channel.head_seq, channel.oldest_seq
    into.subscribers = channel.subscribers
    into.role = channel_pb2.Role.ValueType(channel.role)


def fill_post(into: post_pb2.Post, post: Post) -> None:
    """Write a post."""
    into.channel_id = post.channel_id
    into.seq = post.seq
    into.post_id = post.post_id
    into.key_version = post.key_version
    fill_time(into.posted_at, post.posted_at)
    into.ciphertext = post.ciphertext


def fill_heads(into: post_pb2.Heads, heads: Mapping[bytes, int]) -> None:
    """Write where channels stand."""
    into.SetInParent()
    for channel_id, head_seq in heads.items():
        into.heads.add(channel_id=channel_id, head_seq=head_seq)


def _retention(span: Duration) -> timedelta:
    allowed = f"whole seconds, {SHORTEST_RETENTION} to {LONGEST_RETENTION.days} days"
    shortest, longest = SHORTEST_RETENTION.total_seconds(), LONGEST_RETENTION.total_seconds()
    if span.nanos or not shortest <= span.seconds <= longest:
        raise _invalid("retention", allowed)
    return timedelta(seconds=span.seconds)


def _read_rotation(rotation: channel_pb2.KeyRotation) -> Change:
    return RotateKey(
        read_key("link_key_hash", rotation.link_key_hash),
        read_attributes(rotation.attributes),
        read_sealed_key(rotation.sealed_key),
    )


def _of_length(name: str, value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise _invalid(name, f"{length} bytes")
    return value


def _at_most(name: str, value: bytes, most: int) -> bytes:
    if len(value) > most:
        raise _invalid(name, f"at most {most} bytes")
    return value


def _invalid(name: str, allowed: str) -> InvalidArgument:
    return InvalidArgument(f"{name} is not allowed", metadata={"field": name, "allowed": allowed})


_READERS: Mapping[str, Callable[[Any], Change]] = {
    "attributes": lambda one: SetAttributes(
        read_attributes(one.attributes), read_key_version(one.key_version)
    ),
    "retention": lambda span: SetRetention(_retention(span)),
    "add_admin": lambda user_id: SetAdmin(read_id("add_admin", user_id), is_admin=True),
    "remove_admin": lambda user_id: SetAdmin(read_id("remove_admin", user_id), is_admin=False),
    "rotate_key": _read_rotation,
}
