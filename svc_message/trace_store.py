"""The SQL of a shard's traces: where those of sampled messages stand while these wait in queues."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from mesh.postgres import Pool, fetch

_NOTE = """
INSERT INTO message_trace (slot, message_id, trace)
SELECT t.slot, t.message_id, t.trace
FROM unnest($1::smallint[], $2::bytea[], $3::bytea[]) AS t (slot, message_id, trace)
WHERE t.slot = ANY ((SELECT owned_slots($1))::smallint[])
ON CONFLICT DO NOTHING
"""
_FIND = """
SELECT t.slot, t.message_id, t.trace
FROM unnest($1::smallint[], $2::bytea[]) AS asked (slot, message_id)
JOIN message_trace AS t ON t.message_id = asked.message_id AND t.slot = asked.slot
"""
_FORGET = "DELETE FROM message_trace WHERE noted_at < now() - $1::interval"


class Traced(NamedTuple):
    """Where the trace of a sampled message stands, for the users of a slot."""

    slot: int
    message_id: bytes
    trace: bytes


class TraceStore:
    """One shard's traces."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(self, traced: Sequence[Traced]) -> None:
        """Remember where the traces of sampled messages stand, of the slots that are here."""
        await fetch(self._pool, _NOTE, *map(list, zip(*traced, strict=True)))

    async def find(self, asked: Sequence[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], bytes]:
        """Where the traces of those that are sampled stand, each a slot and a message id."""
        rows = await fetch(self._pool, _FIND, *map(list, zip(*asked, strict=True)))
        return {(row["slot"], row["message_id"]): row["trace"] for row in rows}

    async def forget(self, older_than: timedelta) -> None:
        """Forget those of messages that no queue holds any more."""
        await fetch(self._pool, _FORGET, older_than)
