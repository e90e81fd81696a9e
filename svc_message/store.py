"""The only SQL of messaging: one call of a shard's function a batch, a result per item.

Arguments go as arrays, a column each, sorted as the functions demand (sql/0002_functions.sql).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mesh.postgres import Pool, fetch, server_time
from svc_message.columns import body_columns, user_copies
from svc_message.model import Outcome
from svc_message.outbox_store import OutboxStore, change_of
from svc_message.requests import (
    AccountRequest,
    AckRequest,
    ContactRequest,
    Copy,
    HeadRequest,
    OpenRequest,
    PageRequest,
    ReadRequest,
    ReceiptChange,
    ReceiptsRequest,
    SendRequest,
)
from svc_message.results import (
    AckResult,
    CopyPart,
    CopyResult,
    DevicesResult,
    MergeResult,
    PageResult,
    Place,
    PlainResult,
    ReceiptEffects,
    ReceiptRow,
    SendResult,
)
from svc_message.trace_store import TraceStore

_ACCEPT = """
SELECT item, outcome, seq, accepted_at, message_id, copy, prev, sent_prev, device_id, pos, entry_id
FROM accept($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24)
"""
_COPY = """
SELECT * FROM copy($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
"""
_ACK = "SELECT * FROM ack($1, $2, $3, $4, $5)"
_READ = "SELECT * FROM mark_read($1, $2, $3, $4, $5, $6)"
_MERGE = "SELECT * FROM merge($1, $2, $3, $4, $5, $6, $7, $8)"
_OPEN = "SELECT * FROM open($1, $2, $3, $4, $5)"
_PAGE = "SELECT * FROM page($1, $2, $3, $4, $5, $6, $7)"
_HEADS = "SELECT * FROM heads($1, $2, $3, $4)"
_RECEIPTS = "SELECT * FROM receipts_after($1, $2, $3, $4, $5)"
_DEVICES = "SELECT item, outcome, device_id, registration_id FROM linked_devices($1, $2, $3)"
_EXIST = "SELECT * FROM accounts_exist($1, $2, $3)"
_COUNT_CONTACTS = "SELECT * FROM count_first_contacts($1, $2, $3, $4, $5)"
_FORGET_CONTACTS = "DELETE FROM first_contact WHERE contacted_at < now() - interval '1 day'"
_SHARE_GROUPS = "SELECT * FROM share_groups($1, $2) AS item"
_EXPIRE = "SELECT user_id, device_id, expired FROM expire($1, $2, $3, $4)"
_DEDUP_USED = tuple(f"SELECT seq FROM dedup_{day} LIMIT 1" for day in range(10))  # noqa: S608
_EMPTY_DEDUP = tuple(f"TRUNCATE dedup_{day}" for day in range(10))


class ShardStore:
    """One shard's functions."""

    def __init__(self, shard: str, pool: Pool) -> None:
        self._shard = shard
        self._pool = pool
        self.outbox = OutboxStore(shard, pool)
        self.traces = TraceStore(pool)

    async def accept(self, sends: Sequence[SendRequest]) -> list[SendResult]:
        """Accept sends; each conversation's in the order given."""
        order = sorted(range(len(sends)), key=lambda i: sends[i].conversation_id)
        items = [sends[i] for i in order]
        copies = user_copies(items)
        slots = {item.slot for item in items} | {copy.slot for copy in copies}
        rows = await fetch(
            self._pool,
            _ACCEPT,
            list(slots),
            [item.slot for item in items],
            [item.conversation_id for item in items],
            [item.sender_id for item in items],
            [item.sender_device_id for item in items],
            [item.recipient_id for item in items],
            [item.client_message_id for item in items],
            [item.after for item in items],
            [item.day for item in items],
            [item.digest for item in items],
            [item.message_id for item in items],
            [bool(item.own_bodies) for item in items],
            [item.recipient_known for item in items],
            [item.refusal for item in items],
            [copy.item for copy in copies],
            [copy.user_id for copy in copies],
            [copy.slot for copy in copies],
            [copy.peer_id for copy in copies],
            *body_columns([copy.bodies for copy in copies]),
        )
        results: list[Any] = [None] * len(items)
        parts: dict[int, CopyPart] = {}
        for (
            item,
            outcome,
            seq,
            at,
            message_id,
            k,
            prev,
            sent_prev,
            device_id,
            pos,
            entry_id,
        ) in rows:
            place = order[item - 1]
            if results[place] is None:
                results[place] = SendResult(outcome, seq, at, message_id, self._shard)
            if k is None:
                continue
            part = parts.get(k)
            if part is None:
                part = parts[k] = CopyPart(copies[k - 1].is_own, prev, sent_prev, entry_id)
                results[place].parts.append(part)
            if device_id is not None:
                part.places.append(Place(device_id, pos))
        return results

    async def copy(self, copies: Sequence[Copy]) -> list[CopyResult]:
        """Write copies into the queues of users of this shard."""
        order = sorted(
            range(len(copies)),
            key=lambda i: (copies[i].user_id, copies[i].conversation_id, copies[i].seq),
        )
        items = [copies[i] for i in order]
        rows = await fetch(
            self._pool,
            _COPY,
            _slots(items),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.prev for item in items],
            [item.seq for item in items],
            [item.sent_prev for item in items],
            [item.accepted_at for item in items],
            [item.sender_device_id for item in items],
            [item.conversation_id for item in items],
            [item.peer_id for item in items],
            [item.sender_id for item in items],
            [item.message_id for item in items],
            *body_columns([item.bodies for item in items]),
        )
        results: list[Any] = [None] * len(items)
        for item, outcome, device_id, pos in rows:
            place = order[item - 1]
            if results[place] is None:
                results[place] = CopyResult(outcome)
            if device_id is not None:
                results[place].places.append(Place(device_id, pos))
        return results

    async def linked_devices(self, requests: Sequence[AccountRequest]) -> list[DevicesResult]:
        """The linked devices of accounts, each with its registration."""
        rows = await fetch(
            self._pool,
            _DEVICES,
            _slots(requests),
            [item.slot for item in requests],
            [item.user_id for item in requests],
        )
        results = [DevicesResult(Outcome.DONE) for _ in requests]
        for item, outcome, device_id, registration_id in rows:
            results[item - 1].outcome = outcome
            if device_id is not None:
                results[item - 1].registrations[device_id] = registration_id
        return results

    async def ack(self, acks: Sequence[AckRequest]) -> tuple[list[AckResult], ReceiptEffects]:
        """Acknowledge queues; no device twice."""
        order = sorted(range(len(acks)), key=lambda i: (acks[i].user_id, acks[i].device_id))
        items = [acks[i] for i in order]
        rows = await fetch(
            self._pool,
            _ACK,
            _slots(items),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.device_id for item in items],
            [item.up_to_pos for item in items],
        )
        results: list[Any] = [None] * len(items)
        for row in rows[: len(items)]:
            results[order[row["item"] - 1]] = AckResult(row["outcome"], row["acked_pos"])
        return results, self._effects(rows[len(items) :])

    async def mark_read(
        self, reads: Sequence[ReadRequest]
    ) -> tuple[list[PlainResult], ReceiptEffects]:
        """Mark conversations read."""
        order = sorted(
            range(len(reads)), key=lambda i: (reads[i].user_id, reads[i].conversation_id)
        )
        items = [reads[i] for i in order]
        rows = await fetch(
            self._pool,
            _READ,
            _slots(items),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.conversation_id for item in items],
            [item.author_id for item in items],
            [item.up_to_seq for item in items],
        )
        results: list[Any] = [None] * len(items)
        for row in rows[: len(items)]:
            results[order[row["item"] - 1]] = PlainResult(row["outcome"])
        return results, self._effects(rows[len(items) :])

    async def merge(self, changes: Sequence[ReceiptChange]) -> list[MergeResult]:
        """Merge receipt changes into those of users of this shard."""
        order = sorted(
            range(len(changes)),
            key=lambda i: (changes[i].user_id, changes[i].conversation_id, changes[i].peer_id),
        )
        items = [changes[i] for i in order]
        rows = await fetch(
            self._pool,
            _MERGE,
            _slots(items),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.conversation_id for item in items],
            [item.peer_id for item in items],
            [item.delivered_after for item in items],
            [item.delivered_to for item in items],
            [item.read_up_to for item in items],
        )
        results: list[Any] = [None] * len(items)
        for row in rows:
            place = order[row["item"] - 1]
            result = results[place] = MergeResult(row["outcome"])
            if row["version"] is not None:
                change = changes[place]
                result.row = ReceiptRow(
                    change.user_id,
                    change.peer_id,
                    row["version"],
                    row["delivered"],
                    row["read_up_to"],
                )
        return results

    async def open(self, opens: Sequence[OpenRequest]) -> list[PlainResult]:
        """Give each session its epoch."""
        order = sorted(range(len(opens)), key=lambda i: (opens[i].user_id, opens[i].device_id))
        items = [opens[i] for i in order]
        rows = await fetch(
            self._pool,
            _OPEN,
            _slots(items),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.device_id for item in items],
            [item.credential_version for item in items],
        )
        return _plain(rows, order)

    async def page(self, pages: Sequence[PageRequest]) -> list[PageResult]:
        """Read pages of queues."""
        rows = await fetch(
            self._pool,
            _PAGE,
            _slots(pages),
            [item.slot for item in pages],
            [item.user_id for item in pages],
            [item.device_id for item in pages],
            [item.after_pos for item in pages],
            [item.max_envelopes for item in pages],
            [item.max_bytes for item in pages],
        )
        results = [PageResult(Outcome.DONE) for _ in pages]
        for row in rows:
            result = results[row["item"] - 1]
            result.outcome = row["outcome"]
            result.rows.append(row)
        return results

    async def heads(self, heads: Sequence[HeadRequest]) -> list[PlainResult]:
        """Read where queues stand."""
        rows = await fetch(
            self._pool,
            _HEADS,
            _slots(heads),
            [item.slot for item in heads],
            [item.user_id for item in heads],
            [item.device_id for item in heads],
        )
        return _plain(rows, range(len(heads)))

    async def receipts_after(self, requests: Sequence[ReceiptsRequest]) -> list[PageResult]:
        """Read receipts above a version."""
        rows = await fetch(
            self._pool,
            _RECEIPTS,
            _slots(requests),
            [item.slot for item in requests],
            [item.user_id for item in requests],
            [item.after_version for item in requests],
            [item.max_receipts for item in requests],
        )
        results = [PageResult(Outcome.DONE) for _ in requests]
        for row in rows:
            result = results[row["item"] - 1]
            result.outcome = row["outcome"]
            result.rows.append(row)
        return results

    async def accounts_exist(self, checks: Sequence[AccountRequest]) -> list[PlainResult]:
        """Tell which accounts exist: DONE or GONE."""
        rows = await fetch(
            self._pool,
            _EXIST,
            _slots(checks),
            [item.slot for item in checks],
            [item.user_id for item in checks],
        )
        return _plain(rows, range(len(checks)))

    async def count_first_contacts(
        self, requests: Sequence[ContactRequest], most: int
    ) -> list[PlainResult]:
        """Count first contacts: DONE, or TOO_MANY_CONTACTS with the time to `wait`."""
        order = sorted(range(len(requests)), key=lambda i: requests[i].user_id)
        items = [requests[i] for i in order]
        rows = await fetch(
            self._pool,
            _COUNT_CONTACTS,
            _slots(items),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.recipient_id for item in items],
            most,
        )
        return _plain(rows, order)

    async def forget_first_contacts(self) -> None:
        """Forget those that do not count any more."""
        await fetch(self._pool, _FORGET_CONTACTS)

    async def share_groups(self, requests: Sequence[ContactRequest]) -> set[int]:
        """Which of them are between members of one group, of those that are here."""
        users = [item.user_id for item in requests]
        recipients = [item.recipient_id for item in requests]
        rows = await fetch(self._pool, _SHARE_GROUPS, users, recipients)
        return {row["item"] - 1 for row in rows}

    async def now(self) -> datetime:
        """The shard's clock."""
        return await server_time(self._pool)

    async def expire(
        self, after: tuple[bytes, int], before: datetime, limit: int
    ) -> list[tuple[bytes, int, int]]:
        """Expire the old prefix of up to `limit` queues: (user, device, rows) of each looked at."""
        rows = await fetch(self._pool, _EXPIRE, *after, before, limit)
        return [tuple(row) for row in rows]

    async def empty_old_dedup(self) -> None:
        """Empty the dedup table whose day is 8 days old: no retry is taken from then on."""
        day = (int((await self.now()).timestamp()) // 86400 - 8) % 10
        if await fetch(self._pool, _DEDUP_USED[day]):
            await fetch(self._pool, _EMPTY_DEDUP[day])

    def _effects(self, rows: Sequence[Any]) -> ReceiptEffects:
        effects = ReceiptEffects()
        for row in rows:
            if row["entry_id"] is None:
                effects.merged.append(
                    ReceiptRow(
                        row["user_id"],
                        row["peer_id"],
                        row["version"],
                        row["delivered"],
                        row["read_up_to"],
                    )
                )
            else:
                effects.entries.append(change_of(row, self._shard))
        return effects


def _slots(items: Sequence[Any]) -> list[int]:
    return list({item.slot for item in items})


def _plain(rows: Sequence[Any], order: Sequence[int]) -> list[PlainResult]:
    results: list[Any] = [None] * len(order)
    for row in rows:
        results[order[row["item"] - 1]] = PlainResult(row["outcome"], row)
    return results
