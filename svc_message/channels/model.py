"""What channels are made of, what may be changed of them, and what refuses that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TypeAlias

import grpc

from mesh.errors import PermissionDenied, WhimbrelError

MOST_SUBSCRIPTIONS = 1000
MOST_ADMINS = 50
MOST_POSTS = 10_000  # are kept
MOST_A_PAGE = 100
PAGE_BYTES = 768 * 1024  # a page ends with the post that reaches them, below 1 MiB
RETENTION = timedelta(days=30)


class Role(IntEnum):
    """Each may do all that the ones below it may; numbered as on the wire."""

    SUBSCRIBER = 1
    ADMIN = 2
    OWNER = 3


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as it stood at one moment, for one account."""

    channel_id: bytes
    role: Role
    attributes: bytes = field(repr=False)
    key_version: int
    link_hash: bytes = field(repr=False)
    retention: timedelta
    head_seq: int
    oldest_seq: int
    subscribers: int


@dataclass(frozen=True, slots=True)
class Post:
    """A post."""

    channel_id: bytes
    seq: int
    post_id: bytes
    key_version: int
    posted_at: datetime
    ciphertext: bytes = field(repr=False)
    trace: bytes = b""  # where its trace stands, if it is sampled and has just been posted


@dataclass(frozen=True, slots=True)
class Standing:
    """The seqs that can be read; oldest_seq is head_seq + 1 if none can."""

    head_seq: int
    oldest_seq: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """What an account has of a channel."""

    channel_id: bytes
    cursor: int
    sealed_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Posts in a row, and where the channel stood."""

    posts: Sequence[Post]
    standing: Standing


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Other attributes, encrypted under the key of this version."""

    attributes: bytes = field(repr=False)
    key_version: int


@dataclass(frozen=True, slots=True)
class SetRetention:
    """Posts are kept for so long."""

    retention: timedelta


@dataclass(frozen=True, slots=True)
class SetAdmin:
    """An account may post, or not any more."""

    user_id: bytes
    is_admin: bool


@dataclass(frozen=True, slots=True)
class RotateKey:
    """Another key, with the attributes encrypted under it, and sealed for the owner."""

    link_hash: bytes = field(repr=False)
    attributes: bytes = field(repr=False)
    sealed_key: bytes = field(repr=False)


Change: TypeAlias = SetAttributes | SetRetention | SetAdmin | RotateKey


class ChannelUnknown(WhimbrelError):
    """No such channel, not any more, or none that the caller subscribes or posts to."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "CHANNEL_UNKNOWN"


class ChannelLinkInvalid(PermissionDenied):
    """The key is not the channel's, or there is no such channel; it is not told which."""

    reason = "CHANNEL_LINK_INVALID"


class ChannelKeyStale(WhimbrelError):
    """The channel has another key by now."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CHANNEL_KEY_STALE"


class PostConflict(WhimbrelError):
    """The name was given to another post before."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "CLIENT_MESSAGE_ID_CONFLICT"


class TooManyChannels(WhimbrelError):
    """The account subscribes to as many channels as it may."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_CHANNELS"


class TooManyAdmins(WhimbrelError):
    """The channel has as many admins as it may have."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_ADMINS"


class CursorAboveHead(WhimbrelError):
    """Nobody can have read so far."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "CURSOR_ABOVE_HEAD"
