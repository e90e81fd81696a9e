"""Channels as protobuf: requests read, channels and posts written."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from svc_message.channels.model import (
    RETENTION,
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


def read_key_version(key_version: int) -> int:
    """A key's version, as far as the store counts: no key gets there."""
    return min(key_version, _MOST_VERSION)


def read_retention(request: Any) -> timedelta:
    """The field `retention`, or the usual one if it is not set."""
    return _span(request.retention) if request.HasField("retention") else RETENTION


def read_change(request: channel_pb2.ChangeChannelRequest) -> Change:
    """The change that is asked for."""
    kind = request.WhichOneof("change") or ""
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


def _span(span: Duration) -> timedelta:
    return timedelta(seconds=span.seconds)


def _read_rotation(rotation: channel_pb2.KeyRotation) -> Change:
    return RotateKey(rotation.link_key_hash, rotation.attributes, rotation.sealed_key)


_READERS: Mapping[str, Callable[[Any], Change]] = {
    "attributes": lambda one: SetAttributes(one.attributes, read_key_version(one.key_version)),
    "retention": lambda span: SetRetention(_span(span)),
    "add_admin": lambda user_id: SetAdmin(user_id, is_admin=True),
    "remove_admin": lambda user_id: SetAdmin(user_id, is_admin=False),
    "rotate_key": _read_rotation,
}
