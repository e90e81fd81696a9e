"""The SQL of one shard's outbox: copies and receipts that are still to be carried elsewhere."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mesh.postgres import Pool, fetch, server_time
from svc_message.requests import Body, Copy, ReceiptChange

_TAKE_COPIES = "SELECT * FROM take_copies($1, $2, $3)"
_TAKE_RECEIPTS = "SELECT * FROM take_receipts($1, $2, $3)"
_SETTLE_COPIES = "SELECT settle_copies($1, $2, $3, $4)"
_SETTLE_RECEIPTS = "SELECT settle_receipts($1, $2, $3)"
_PENDING = """
SELECT count(*) FROM (SELECT FROM copy_outbox WHERE user_slot = ANY ($1) LIMIT $2) AS pending
"""


class OutboxStore:
    """One shard's outbox."""

    def __init__(self, shard: str, pool: Pool) -> None:
        self._shard = shard
        self._pool = pool

    async def take_copies(
        self, limit: int, lease: timedelta, down_slots: Sequence[int]
    ) -> list[Copy]:
        """Overdue copies, the lowest first; nobody else takes them during the lease."""
        rows = await fetch(self._pool, _TAKE_COPIES, limit, lease, down_slots)
        return [self._copy(row) for row in sorted(rows, key=_entry_id)]

    async def take_receipts(
        self, limit: int, lease: timedelta, down_slots: Sequence[int]
    ) -> list[ReceiptChange]:
        """The same for receipt changes."""
        rows = await fetch(self._pool, _TAKE_RECEIPTS, limit, lease, down_slots)
        return [change_of(row, self._shard, row["attempts"]) for row in sorted(rows, key=_entry_id)]

    async def settle_copies(
        self, done: Sequence[int], failed: Sequence[tuple[int, timedelta]], full: Sequence[int]
    ) -> None:
        """Remove entries, postpone others, hold back the conversations of full queues."""
        ids, again = await self._postponed(failed)
        await fetch(self._pool, _SETTLE_COPIES, done, ids, again, full)

    async def settle_receipts(
        self, done: Sequence[int], failed: Sequence[tuple[int, timedelta]]
    ) -> None:
        """The same for receipt changes."""
        ids, again = await self._postponed(failed)
        await fetch(self._pool, _SETTLE_RECEIPTS, done, ids, again)

    async def pending_copies(self, user_slots: Sequence[int], most: int) -> int:
        """How many copies wait for these slots; counts no further than `most`."""
        rows = await fetch(self._pool, _PENDING, user_slots, most)
        return int(rows[0][0])

    def _copy(self, row: Any) -> Copy:
        return Copy(
            slot=row["user_slot"],
            user_id=row["user_id"],
            conversation_id=row["conversation_id"],
            prev=row["prev"],
            seq=row["seq"],
            sent_prev=row["sent_prev"],
            accepted_at=row["accepted_at"],
            peer_id=row["peer_id"],
            sender_id=row["sender_id"],
            sender_device_id=row["sender_device_id"],
            message_id=row["message_id"],
            bodies=[
                Body(*body)
                for body in zip(
                    row["devices"], row["registrations"], row["types"], row["bodies"], strict=True
                )
            ],
            entry_id=row["entry_id"],
            home=self._shard,
            attempts=row["attempts"],
        )

    async def _postponed(
        self, failed: Sequence[tuple[int, timedelta]]
    ) -> tuple[list[int], list[datetime]]:
        if not failed:
            return [], []
        now = await server_time(self._pool)
        return [entry_id for entry_id, _ in failed], [now + wait for _, wait in failed]


def change_of(row: Any, shard: str, attempts: int = 0) -> ReceiptChange:
    """A receipt's entry that stands in this shard's outbox."""
    return ReceiptChange(
        slot=row["user_slot"],
        user_id=row["user_id"],
        conversation_id=row["conversation_id"],
        peer_id=row["peer_id"],
        delivered_after=row["delivered_after"],
        delivered_to=row["delivered_to"],
        read_up_to=row["read_up_to"],
        entry_id=row["entry_id"],
        home=shard,
        attempts=attempts,
    )


def _entry_id(row: Any) -> int:
    entry_id: int = row["entry_id"]
    return entry_id
