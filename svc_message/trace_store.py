"""The SQL of a shard's traces: where those of sampled messages stand while these wait in queues."""

from collections.abc import Sequence
from datetime import timedelta

from mesh.postgres import Pool, fetch

_NOTE = """
INSERT INTO message_trace (slot, message_id, trace)
SELECT t.slot, t.message_id, t.trace
FROM unnest($1::smallint[], $2::bytea[], $3::bytea[]) AS t (slot, message_id, trace)
WHERE t.slot = ANY ((SELECT owned_slots($1))::smallint[])
ON CONFLICT DO NOTHING
"""
_FIND = "SELECT message_id, trace FROM message_trace WHERE message_id = ANY ($1)"
_FORGET = "DELETE FROM message_trace WHERE noted_at < now() - $1::interval"


class TraceStore:
    """One shard's traces."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(
        self, slots: Sequence[int], message_ids: Sequence[bytes], traces: Sequence[bytes]
    ) -> None:
        """Remember where the traces of sampled messages stand, of the slots that are here."""
        await fetch(self._pool, _NOTE, slots, message_ids, traces)

    async def find(self, message_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Where the traces of those that are sampled stand."""
        rows = await fetch(self._pool, _FIND, message_ids)
        return {row["message_id"]: row["trace"] for row in rows}

    async def forget(self, older_than: timedelta) -> None:
        """Forget those of messages that no queue holds any more."""
        await fetch(self._pool, _FORGET, older_than)
