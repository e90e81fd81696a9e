"""What the SDK tells its application: messages, sends and their states, receipts, conversations."""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime

from whimbrel.content.v1.content_pb2 import Content, MessageName
from whimbrel_client.payload import kind_of, words_in
from whimbrel_client.ranges import SeqRanges


class SendState(enum.IntEnum):
    """Where a message of one's own stands in the local queue."""

    WAITING = 0
    # The mesh has it, durably.
    ACCEPTED = 1
    # The mesh refused it for good.
    REFUSED = 2
    # Tried and never answered, and too old to be tried again: it may have arrived.
    NOT_CONFIRMED = 3


class Tick(enum.IntEnum):
    """What a person sees beside a message of their own; never goes back."""

    WAITING = 0
    SENT = 1
    DELIVERED = 2
    READ = 3


class Mark(enum.IntEnum):
    """What its author has done to a message since it was written."""

    NONE = 0
    EDITED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True)
class Message:
    """A message that this device has received and stored."""

    # The place in this device's local order: what `messages(after=…)` resumes from.
    cursor: int
    # The other person of the direct chat, 16 bytes.
    conversation: bytes
    # The place in the conversation, the same for everyone in it.
    seq: int
    message_id: bytes
    sender: bytes
    sender_device: int
    accepted_at: datetime
    # As its author has last changed it. None: it could not be decrypted; its sender is asked to
    # send it again, and it then comes as another message.
    content: Content | None
    # What could not be decrypted, as it came.
    ciphertext: bytes = b""
    # False: a service wrote it, in the clear.
    is_encrypted: bool = True
    mark: Mark = Mark.NONE

    @property
    def text(self) -> str | None:
        """The words; None if there are none that this version can read."""
        return None if self.content is None else words_in(self.content)

    @property
    def kind(self) -> str:
        """Which field of Content.kind is set; empty: newer than this version, or unreadable."""
        return "" if self.content is None else kind_of(self.content)

    @property
    def name(self) -> MessageName:
        """How replies, reactions and edits name it."""
        return MessageName(author=self.sender, id=self.content.id if self.content else b"")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a send ended."""

    state: SendState
    # Set when it was accepted.
    message_id: bytes | None = None
    seq: int | None = None
    accepted_at: datetime | None = None
    # Set when it was refused: a whimbrel.error.v1.ErrorReason without its prefix.
    reason: str | None = None


class OutgoingMessage:
    """A message of one's own, safe in the local queue; `outcome` appears once it is known."""

    __slots__ = (
        *("__weakref__", "author", "client_message_id", "content", "conversation", "local_id"),
        *("mark", "outcome"),
    )

    def __init__(
        self,
        local_id: int,
        conversation: bytes,
        *,
        client_message_id: bytes,
        content: Content | None = None,
        mark: Mark = Mark.NONE,
        outcome: Outcome | None = None,
    ) -> None:
        self.local_id = local_id
        self.conversation = conversation
        self.client_message_id = client_message_id
        self.content = content
        self.mark = mark
        self.outcome = outcome
        self.author = b""

    @property
    def text(self) -> str | None:
        """The words; None if there are none."""
        return None if self.content is None else words_in(self.content)

    @property
    def name(self) -> MessageName:
        """How replies, reactions and edits name it."""
        return MessageName(author=self.author, id=self.client_message_id)

    @property
    def state(self) -> SendState:
        """Where the message stands."""
        return SendState.WAITING if self.outcome is None else self.outcome.state

    def __repr__(self) -> str:
        return f"<OutgoingMessage {self.local_id} {self.state.name}>"


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far one person has received and read this account's messages in one conversation."""

    version: int
    conversation: bytes
    peer: bytes
    delivered: SeqRanges
    read_up_to: int

    def tick(self, seq: int) -> Tick:
        """The tick of the own message at this seq."""
        if seq not in self.delivered:
            return Tick.SENT
        return Tick.READ if seq <= self.read_up_to else Tick.DELIVERED


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, as a list of chats shows it."""

    # The other person of the direct chat, 16 bytes.
    conversation: bytes
    # The other person's handle, if this device ever looked it up.
    handle: str | None
    # The greatest seq that is held here, received or sent.
    last_seq: int
    # How far this account has read.
    read_up_to: int
    unread: int
    # Messages of one's own that wait to be accepted.
    waiting: int


@dataclass(frozen=True, slots=True)
class LinkedDevice:
    """A device of the own account; 1 is the primary."""

    device_id: int
    linked_at: datetime
    # The day on which it last connected; None: never.
    last_seen_at: datetime | None
    # As the account's devices call it; empty: it has no name.
    name: str = ""


@dataclass(frozen=True, slots=True)
class HistoryProgress:
    """How much of what the primary offered to this device has come."""

    moved: int
    # What there was when it began.
    total: int
    # True as well if nothing was offered.
    is_complete: bool


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """An account has another identity key than before: a new phone, or somebody in between.

    People who care compare safety numbers again.
    """

    # What `identity_changes(after=…)` resumes from.
    cursor: int
    user_id: bytes
    old_key: bytes
    new_key: bytes
    # Whether the application has said that the person was told.
    is_seen: bool = False


@dataclass(frozen=True, slots=True)
class Alarm:
    """Two messages claimed one place of a conversation: the server broke its promise.

    The first is kept; the second is not shown.
    """

    conversation: bytes
    seq: int
    kept_message_id: bytes
    other_message_id: bytes


def moment(milliseconds: int) -> datetime:
    """A time of the store as a datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
