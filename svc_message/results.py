"""What the shards' functions answer, one dataclass a kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from svc_message.requests import ReceiptChange


@dataclass(slots=True)
class Place:
    """A copy that stands in a device's queue."""

    device_id: int
    pos: int


@dataclass(slots=True)
class CopyPart:
    """What became of one user's copy of a send; with an entry it is still to be written."""

    is_own: bool  # for the sender's other devices
    prev: int
    sent_prev: int
    entry_id: int | None
    places: list[Place] = field(default_factory=list)


@dataclass(slots=True)
class SendResult:
    """What became of a send. The entries of its parts stand in `shard`."""

    outcome: int
    seq: int = 0
    accepted_at: datetime | None = None
    message_id: bytes = b""
    shard: str = ""
    parts: list[CopyPart] = field(default_factory=list)


@dataclass(slots=True)
class CopyResult:
    """What became of a copy."""

    outcome: int
    places: list[Place] = field(default_factory=list)


@dataclass(slots=True)
class ReceiptRow:
    """One receipt of an account as it stands now."""

    user_id: bytes
    peer_id: bytes
    version: int
    delivered: Sequence[Any]  # asyncpg.Range of seqs, the upper bound not included
    read_up_to: int
    # Of a group, `peer_id` then: of each message its seq, delivered to, read by.
    tallies: Sequence[tuple[int, int, int]] | None = None
    traces: Sequence[bytes] = ()  # where those of the sampled messages stand that it tells of


@dataclass(slots=True)
class ReceiptEffects:
    """What acknowledging or reading did to receipts: merged here, or to be merged elsewhere."""

    merged: list[ReceiptRow] = field(default_factory=list)
    entries: list[ReceiptChange] = field(default_factory=list)


@dataclass(slots=True)
class AckResult:
    """What became of an acknowledgement."""

    outcome: int
    acked_pos: int


@dataclass(slots=True)
class MergeResult:
    """What became of a receipt change; `row` is None if it changed nothing."""

    outcome: int
    row: ReceiptRow | None = None


@dataclass(slots=True)
class PlainResult:
    """An outcome, and what the function returned beside it."""

    outcome: int
    row: Any = None


@dataclass(slots=True)
class PageResult:
    """The rows of one page; the first also carries the counters."""

    outcome: int
    rows: list[Any] = field(default_factory=list)
    traces: Mapping[bytes, bytes] = field(default_factory=dict)  # by id of the sampled messages


@dataclass(slots=True)
class DevicesResult:
    """The linked devices of an account: registration by device."""

    outcome: int
    registrations: dict[int, int] = field(default_factory=dict)
