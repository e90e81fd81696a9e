"""What the message service works with: outcomes, refusals and the items of its lanes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum

# A body's type is stored as on the wire, with this bit if a person wants to be rung for it.
URGENT = 64


class Outcome(IntEnum):
    """What a shard's function says of one item; sql/0002_functions.sql has the same list."""

    DONE = 1
    REPEATED = 2
    WRITTEN_BEFORE = 3
    NOT_YET = 4
    QUEUE_FULL = 5
    GONE = 6
    SLOT_MOVING = 10
    SLOT_MOVED = 11
    CONFLICT = 20
    PREVIOUS_NOT_ACCEPTED = 21
    RECIPIENT_FULL = 22
    RECIPIENT_UNSEEN = 23
    REFUSED = 24
    DEVICE_MISMATCH = 25
    TOO_MANY_CONTACTS = 26
    ABOVE_HEAD = 30
    DEVICE_UNKNOWN = 31
    GROUP_UNKNOWN = 70
    ROLE_TOO_LOW = 71
    GROUP_CHANGED = 72
    GROUP_AHEAD = 73


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an item was not done. With `retry_after` the same item may be done later."""

    reason: str  # the name of an ErrorReason, without its prefix
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after: timedelta | None = None
