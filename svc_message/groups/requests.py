"""What travels through the lanes of groups: sends, and runs of messages to some of the members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from mesh.ids import SLOTS
from svc_message.groups.model import Changes
from svc_message.requests import Request


@dataclass(slots=True, kw_only=True)
class GroupSend(Request):
    """A message to a group, to accept. `slot` is the group's."""

    group_id: bytes
    sender_id: bytes
    sender_device_id: int
    client_message_id: bytes
    after: bytes
    day: int  # of first_tried_at, modulo 10: the dedup table
    digest: bytes
    message_id: bytes
    revision: int
    device_epoch: int
    type: int
    body: bytes
    refusal: int = 0  # an Outcome with which a new send is refused
    media_ids: Sequence[bytes] = ()
    changes: Changes | None = None  # set when the revision or the device epoch was behind

    @property
    def size(self) -> int:
        return len(self.body)


@dataclass(slots=True, kw_only=True)
class GroupMessage:
    """An accepted message. Its entry stands in the outbox of the shard `home`, for some slots."""

    group_id: bytes
    slot: int
    seq: int
    revision: int
    accepted_at: datetime
    sender_id: bytes
    sender_device_id: int
    last_sender: bytes | None  # who sent the messages before it, and
    sender_prev: int  # the seq before the first of those
    message_id: bytes
    type: int
    body: bytes
    home: str
    attempts: int = 0
    rest: tuple[int, int] = (0, SLOTS - 1)  # the first and the last slot
    trace: bytes = b""  # where its trace stands, if it is sampled

    @property
    def key(self) -> tuple[bytes, int]:
        """What tells it from all others."""
        return self.group_id, self.seq


@dataclass(slots=True, eq=False)
class Run:
    """Messages of one group, consecutive in seq, all accepted at one revision: for one audience."""

    messages: list[GroupMessage]
    shown: int = 0  # to how many devices the traces of its messages go on

    @property
    def group_id(self) -> bytes:
        return self.messages[0].group_id

    @property
    def first_seq(self) -> int:
        return self.messages[0].seq

    @property
    def last_seq(self) -> int:
        return self.messages[-1].seq

    @property
    def sampled(self) -> list[GroupMessage]:
        """Those that have a trace."""
        return [message for message in self.messages if message.trace]


@dataclass(frozen=True, slots=True)
class Recipient:
    """A member at some message, and which seq was addressed to them before it."""

    user_id: bytes
    slot: int
    joined_seq: int
    prev_seq: int  # before their stay

    def prev_of(self, seq: int) -> int:
        """The seq before `seq`, or the last one of an earlier stay."""
        return self.prev_seq if seq == self.joined_seq + 1 else seq - 1


@dataclass(slots=True, kw_only=True)
class Chunk(Request):
    """A run for members who are believed to be on one shard; `slot` is one of theirs."""

    run: Run
    recipients: list[Recipient]

    @property
    def size(self) -> int:
        return sum(len(message.body) for message in self.run.messages)


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where a run begins in a device's queue; what the device has sent itself takes no place."""

    user_id: bytes
    device_id: int
    first_seq: int
    first_pos: int
    traces: Mapping[int, bytes] | None = None  # by seq: where those of sampled messages stand


@dataclass(slots=True)
class ChunkResult:
    """What became of a chunk: where it stands, and the members who do not have it, with why."""

    places: list[RunPlace] = field(default_factory=list)
    missed: list[tuple[Recipient, int]] = field(default_factory=list)
    outcome: int = 1


@dataclass(slots=True)
class GroupSendResult:
    """What became of a send; an accepted one's entry stands in `shard`."""

    shard: str
    outcome: int
    seq: int
    accepted_at: datetime | None
    message_id: bytes
    revision: int
    last_sender: bytes | None
    sender_prev: int
