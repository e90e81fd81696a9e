"""The SQL of one shard that says for which devices something waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mesh.postgres import Pool, fetch
from svc_message.model import URGENT

Device = tuple[bytes, int]
FIRST: Device = (b"", 0)

# Slots need no look: of a slot that has gone there are no rows, and its new shard finds its own.
_UNREAD = """
WITH page AS (
    SELECT user_id, device_id, epoch, head_pos, acked_pos,
        linked AND has_queue AND head_pos > acked_pos AS waits
    FROM device WHERE (user_id, device_id) > ($1, $2) ORDER BY user_id, device_id LIMIT $3
)
SELECT * FROM page WHERE waits OR (user_id, device_id) = (
    SELECT user_id, device_id FROM page ORDER BY user_id DESC, device_id DESC LIMIT 1
)
ORDER BY user_id, device_id
"""
_HEADS = """
SELECT d.user_id, d.device_id, d.epoch, d.head_pos, d.acked_pos
FROM unnest($1::bytea[], $2::smallint[]) AS a (user_id, device_id)
JOIN device d ON (d.user_id, d.device_id) = (a.user_id, a.device_id)
WHERE d.linked AND d.head_pos > d.acked_pos
"""
# What is audible of (after, to]: not what the person has muted.
_AUDIBLE = """
SELECT a.user_id, a.device_id, count(q.type) > 0 AS is_audible,
    coalesce(bool_or(q.type & $5 > 0), false) AS is_urgent
FROM unnest($1::bytea[], $2::smallint[], $3::bigint[], $4::bigint[])
    AS a (user_id, device_id, after_pos, to_pos)
LEFT JOIN device_queue q ON q.user_id = a.user_id AND q.device_id = a.device_id
    AND q.pos > a.after_pos AND q.pos <= a.to_pos
    AND NOT EXISTS (
        SELECT FROM mute m WHERE m.user_id = q.user_id AND m.conversation_id = q.conversation_id
            AND m.until > clock_timestamp()
    )
GROUP BY a.user_id, a.device_id
"""


@dataclass(frozen=True, slots=True)
class Unread:
    """A device whose queue is not empty."""

    device: Device
    epoch: int
    head_pos: int
    acked_pos: int


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a device's queue: (after_pos, to_pos]."""

    device: Device
    after_pos: int
    to_pos: int


class WaitingStore:
    """What waits on one shard. Raises STORE_ERRORS."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def unread_after(self, last: Device, limit: int) -> tuple[list[Unread], Device | None]:
        """Of the next `limit` devices those with unread queues, and the last one looked at."""
        rows = await fetch(self._pool, _UNREAD, *last, limit)
        if not rows:
            return [], None
        return [_unread(row) for row in rows if row["waits"]], _device(rows[-1])

    async def unread(self, devices: Sequence[Device]) -> list[Unread]:
        """Of these devices those with unread queues."""
        users, numbers = zip(*devices, strict=True)
        return [_unread(row) for row in await fetch(self._pool, _HEADS, users, numbers)]

    async def audible(self, spans: Sequence[Span]) -> dict[Device, tuple[bool, bool]]:
        """Whether the parts hold anything that is not muted, and anything urgent of that."""
        rows = await fetch(
            self._pool,
            _AUDIBLE,
            [span.device[0] for span in spans],
            [span.device[1] for span in spans],
            [span.after_pos for span in spans],
            [span.to_pos for span in spans],
            URGENT,
        )
        return {_device(row): (row["is_audible"], row["is_urgent"]) for row in rows}


def _unread(row: Any) -> Unread:
    return Unread(_device(row), row["epoch"], row["head_pos"], row["acked_pos"])


def _device(row: Any) -> Device:
    return row["user_id"], row["device_id"]
