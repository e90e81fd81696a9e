"""The SQL of one shard's references to objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mesh.postgres import Pool, fetch

_NOTE = """
INSERT INTO media_reference (due, expires_at, media_id)
SELECT clock_timestamp(), clock_timestamp() + $2, media_id FROM unnest($1::bytea[]) AS u (media_id)
"""
_TAKE = """
UPDATE media_reference SET due = clock_timestamp() + $2 WHERE entry_id IN (
    SELECT entry_id FROM media_reference WHERE due <= clock_timestamp()
    ORDER BY due LIMIT $1 FOR UPDATE SKIP LOCKED
)
RETURNING entry_id, media_id, expires_at
"""
_SETTLE = "DELETE FROM media_reference WHERE entry_id = ANY ($1::bigint[])"


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that a message refers to until it expires."""

    entry_id: int
    media_id: bytes
    expires_at: datetime


class ReferenceStore:
    """One shard's references. Raises STORE_ERRORS."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(self, media_ids: Sequence[bytes], keep: timedelta) -> None:
        """Messages that are about to be accepted refer to these, and are kept so long."""
        await fetch(self._pool, _NOTE, media_ids, keep)

    async def take(self, limit: int, lease: timedelta) -> list[Reference]:
        """Some that are due; nobody else takes them during the lease."""
        return [Reference(*row) for row in await fetch(self._pool, _TAKE, limit, lease)]

    async def settle(self, entry_ids: Sequence[int]) -> None:
        """The media service has these."""
        await fetch(self._pool, _SETTLE, entry_ids)
