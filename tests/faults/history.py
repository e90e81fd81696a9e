"""What clients saw, in the order in which they saw it: the only evidence that the checker takes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

Ranges = tuple[tuple[int, int], ...]  # of seqs, both ends included


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a person's device said or heard, by the clock of the run."""

    at: float
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried(Event):
    """A send was written to a stream; `number` is its place among all sends of the device."""

    client_id: bytes
    to: str
    body: bytes
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Event):
    """The mesh said that the send is durable."""

    client_id: bytes
    message_id: bytes
    seq: int
    accepted_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """The mesh refused the send: for good, if there is no time to come again."""

    client_id: bytes
    reason: str
    retry_after: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Event):
    """A stream began."""

    epoch: int
    head_pos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Event):
    """A delivery on the stream, or a message that an SDK showed: then it has no pos."""

    peer: str
    seq: int
    message_id: bytes
    sender: str
    body: bytes
    accepted_at: float
    pos: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acked(Event):
    """An ack was written to the stream."""

    up_to_pos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp(Event):
    """The mesh said that nothing from before the stream is left."""

    pos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipted(Event):
    """The mesh said how far a peer is."""

    version: int
    peer: str
    delivered: Ranges
    read_up_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Event):
    """A read was written to the stream."""

    peer: str
    up_to_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Event):
    """The stream was over."""

    reason: str


E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Queue:
    """A device's queue in its shard, once all is quiet."""

    head_pos: int
    acked_pos: int
    rows: int


@dataclass(frozen=True, slots=True)
class Rest:
    """What the shards hold once all is quiet."""

    queues: dict[str, Queue] = field(default_factory=dict)
    outbox_entries: int = 0


class History:
    """All events of one run."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._names: dict[bytes, str] = {}

    def name(self, user_id: bytes, name: str) -> None:
        """From now on this account is called so."""
        self._names[user_id] = name

    def name_of(self, user_id: bytes) -> str:
        return self._names.get(user_id, user_id.hex())

    def add(self, event: Event) -> None:
        self.events.append(event)

    def all(self, kind: type[E]) -> Iterator[E]:
        return (event for event in self.events if isinstance(event, kind))

    @staticmethod
    def now() -> float:
        return time.monotonic()
