"""The SQL of one shard's domain events and of the groups that read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

from mesh.postgres import Pool, fetch, server_time

_READ = "SELECT * FROM read_events($1, $2, $3, $4)"
_COMMIT = "SELECT commit_events($1, $2, $3)"
_RELEASE = "SELECT release_events($1, $2)"
_REWIND = "SELECT rewind_events($1)"
_FORGET = "SELECT removed, unread FROM forget_events($1, $2, $3, $4)"


class EventKind(IntEnum):
    """As in sql/0018_events.sql."""

    ACCEPTED = 1
    DELIVERED = 2
    READ = 3
    GROUP_CHANGED = 4
    DEVICE_LINKED = 5


@dataclass(frozen=True, slots=True)
class Event:
    """A row of domain_event; what its kind does not have is None."""

    entry_id: int
    kind: EventKind
    device_id: int | None
    happened_at: datetime
    after_seq: int | None
    number: int | None
    key_id: bytes
    person_id: bytes | None
    author_id: bytes | None
    message_id: bytes | None


class EventStore:
    """One shard's events."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(
        self, group: str, holder: str, lease: timedelta, limit: int
    ) -> Sequence[Event] | None:
        """What the group has not committed, ascending; None while another consumer holds it."""
        held, *rows = await fetch(self._pool, _READ, group, holder, lease, limit)
        if not held["is_held"]:
            return None
        return [Event(row[1], EventKind(row[2]), *tuple(row)[3:]) for row in rows]

    async def commit(self, group: str, holder: str, up_to: int) -> bool:
        """Note what the group needs no more; False if the consumer does not hold it."""
        [row] = await fetch(self._pool, _COMMIT, group, holder, up_to)
        return bool(row[0])

    async def release(self, group: str, holder: str) -> None:
        """Let another consumer of the group read at once."""
        await fetch(self._pool, _RELEASE, group, holder)

    async def rewind(self, group: str) -> None:
        """Give the group all again that is kept."""
        await fetch(self._pool, _REWIND, group)

    async def forget(
        self, keep: timedelta, keep_done: timedelta, most: int, limit: int
    ) -> tuple[int, int]:
        """Remove up to `limit` old events; how many went, and how many some group had not read.

        `keep_done` is how long those stay that every group is done with; `keep` and `most` are how
        long, and how many, the others.
        """
        now = await server_time(self._pool)
        [row] = await fetch(self._pool, _FORGET, now - keep, now - keep_done, most, limit)
        return row["removed"], row["unread"]
