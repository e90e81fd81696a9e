"""What the SDK tells of channels."""

import enum
from dataclasses import dataclass
from datetime import datetime

from whimbrel.content.v1.content_pb2 import Content
from whimbrel_client.payload import words_in


class ChannelRole(enum.IntEnum):
    """What the account is to a channel; each may do all that the ones before it may."""

    SUBSCRIBER = 1
    ADMIN = 2
    OWNER = 3


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that this account follows, as it was last heard of."""

    channel_id: bytes
    # Empty: they could not be read, for want of the newest key.
    name: str
    description: str
    role: ChannelRole
    # About how many follow it.
    subscribers: int
    # The seq of the newest post that is stored here.
    last_seq: int
    # How far this account has read, on any of its devices.
    read_up_to: int


@dataclass(frozen=True, slots=True)
class Post:
    """A post that this device has stored."""

    # The place in this device's local order: what `posts(after=…)` resumes from.
    cursor: int
    channel_id: bytes
    # The place in the channel, the same for everyone.
    seq: int
    post_id: bytes
    posted_at: datetime
    # None: the key that it is encrypted under is not known here.
    content: Content | None

    @property
    def text(self) -> str | None:
        """The words; None if there are none that this version can read."""
        return None if self.content is None else words_in(self.content)
