"""The only SQL of groups' messages: one call of a shard's function a batch, a result per item."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from mesh.ids import slot_of
from mesh.postgres import Pool, fetch, server_time
from svc_message.groups.model import MOST_CHANGES
from svc_message.groups.requests import (
    Chunk,
    ChunkResult,
    GroupMessage,
    GroupSend,
    GroupSendResult,
    Recipient,
    Run,
    RunPlace,
)
from svc_message.groups.store import changes_of
from svc_message.model import Outcome
from svc_message.results import PlainResult

_ACCEPT = """
SELECT item, outcome, seq, accepted_at, message_id, revision, last_sender, sender_prev
FROM accept_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""
_CHANGES = "SELECT * FROM list_changes($1, $2, $3, $4, $5, $6)"
_RECIPIENTS = "SELECT outcome, user_id, joined_seq, prev_seq FROM recipients($1, $2, $3)"
_WRITE = """
SELECT item, outcome, device_id, first_seq, first_pos
FROM write_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
"""
_TAKE = "SELECT * FROM take_runs($1, $2, $3)"
_TAKE_DUE = "SELECT * FROM take_due_runs($1, $2, $3)"
_SETTLE = "SELECT settle_runs($1, $2, $3, $4, $5, $6, $7)"
_PENDING = """
SELECT count(*) FROM (
    SELECT FROM group_outbox WHERE rest_from <= $2 AND rest_to >= $1 LIMIT $3) AS pending
"""
_FORGET = "SELECT forget_group_messages($1, $2)"
_FORGET_EMPTY = "SELECT forget_empty_groups($1, $2)"
_WRITTEN = (Outcome.DONE, Outcome.WRITTEN_BEFORE, Outcome.GONE)


class GroupMessageStore:
    """One shard's functions."""

    def __init__(self, shard: str, pool: Pool) -> None:
        self._shard = shard
        self._pool = pool

    async def accept(self, sends: Sequence[GroupSend]) -> list[GroupSendResult]:
        """Accept sends; each group's in the order given."""
        order = sorted(range(len(sends)), key=lambda i: sends[i].group_id)
        items = [sends[i] for i in order]
        rows = await fetch(
            self._pool,
            _ACCEPT,
            list({item.slot for item in items}),
            [item.slot for item in items],
            [item.group_id for item in items],
            [item.sender_id for item in items],
            [item.sender_device_id for item in items],
            [item.client_message_id for item in items],
            [item.after for item in items],
            [item.day for item in items],
            [item.digest for item in items],
            [item.message_id for item in items],
            [item.revision for item in items],
            [item.device_epoch for item in items],
            [item.refusal for item in items],
            [item.type for item in items],
            [item.body for item in items],
        )
        results: list[Any] = [None] * len(items)
        for item, *columns in rows:
            results[order[item - 1]] = GroupSendResult(self._shard, *columns)
        return results

    async def changes(self, send: GroupSend) -> PlainResult:
        """What has changed since the revision that the send names; `row` is the Changes."""
        rows = await fetch(
            self._pool,
            _CHANGES,
            *(send.slot, send.group_id, send.sender_id),
            *(send.revision, send.device_epoch, MOST_CHANGES),
        )
        outcome = rows[0]["outcome"]
        return PlainResult(outcome, changes_of(rows) if outcome == Outcome.DONE else None)

    async def recipients(self, slot: int, group_id: bytes, seq: int) -> PlainResult:
        """Who gets a message; `row` is the list of Recipients, by slot."""
        rows = await fetch(self._pool, _RECIPIENTS, slot, group_id, seq)
        if rows and rows[0]["outcome"] != Outcome.DONE:
            return PlainResult(rows[0]["outcome"])
        found = [Recipient(user, slot_of(user), joined, prev) for _, user, joined, prev in rows]
        return PlainResult(Outcome.DONE, sorted(found, key=_slot))

    async def write(self, chunks: Sequence[Chunk]) -> list[ChunkResult]:
        """Write runs into the queues of members who are here; no member is in two chunks."""
        runs = list(dict.fromkeys(chunk.run for chunk in chunks))
        first: dict[Run, int] = {}
        messages: list[GroupMessage] = []
        for run in runs:
            first[run] = len(messages) + 1
            messages += run.messages
        items = [(member, chunk) for chunk in chunks for member in chunk.recipients]
        items.sort(key=lambda item: item[0].user_id)
        rows = await fetch(
            self._pool,
            _WRITE,
            list({member.slot for member, _ in items}),
            [message.group_id for message in messages],
            [message.seq for message in messages],
            [message.accepted_at for message in messages],
            [message.sender_id for message in messages],
            [message.sender_device_id for message in messages],
            [message.last_sender for message in messages],
            [message.sender_prev for message in messages],
            [message.message_id for message in messages],
            [message.type for message in messages],
            [message.body for message in messages],
            [member.slot for member, _ in items],
            [member.user_id for member, _ in items],
            [member.prev_of(chunk.run.first_seq) for member, chunk in items],
            [first[chunk.run] for _, chunk in items],
            [first[chunk.run] + len(chunk.run.messages) - 1 for _, chunk in items],
        )
        results = {id(chunk): ChunkResult() for chunk in chunks}
        for item, outcome, device_id, first_seq, first_pos in rows:
            member, chunk = items[item - 1]
            result = results[id(chunk)]
            if device_id is not None:
                result.places.append(RunPlace(member.user_id, device_id, first_seq, first_pos))
            elif outcome not in _WRITTEN:
                result.missed.append((member, outcome))
        return [results[id(chunk)] for chunk in chunks]

    async def take(
        self, limit: int, lease: timedelta, down_slots: Sequence[int]
    ) -> list[GroupMessage]:
        """Overdue messages; nobody else takes them during the lease."""
        return self._messages(await fetch(self._pool, _TAKE, limit, lease, down_slots))

    async def take_due(
        self, due: Sequence[tuple[bytes, int]], lease: timedelta
    ) -> list[GroupMessage]:
        """Those of these messages (group, seq) that still wait here; nobody else takes them."""
        groups, seqs = [group for group, _ in due], [seq for _, seq in due]
        return self._messages(await fetch(self._pool, _TAKE_DUE, groups, seqs, lease))

    async def settle(
        self, done: Sequence[GroupMessage], failed: Sequence[tuple[GroupMessage, timedelta]]
    ) -> None:
        """Remove messages that all have; postpone others, whose `rest` says for whom."""
        now = await server_time(self._pool) if failed else None
        await fetch(
            self._pool,
            _SETTLE,
            [message.group_id for message in done],
            [message.seq for message in done],
            [message.group_id for message, _ in failed],
            [message.seq for message, _ in failed],
            [message.rest[0] for message, _ in failed],
            [message.rest[1] for message, _ in failed],
            [now + wait for _, wait in failed] if now else [],
        )

    async def pending(self, first_slot: int, last_slot: int, most: int) -> int:
        """How many messages wait for members of these slots; counts no further than `most`."""
        rows = await fetch(self._pool, _PENDING, first_slot, last_slot, most)
        return int(rows[0][0])

    async def forget_messages(self, older_than: timedelta, limit: int) -> int:
        """Forget whose some messages were that no receipt is kept for any more; how many."""
        return await self._forget(_FORGET, older_than, limit)

    async def forget_empty_groups(self, older_than: timedelta, limit: int) -> int:
        """Forget some groups that have had no members for so long; how many."""
        return await self._forget(_FORGET_EMPTY, older_than, limit)

    async def _forget(self, statement: str, older_than: timedelta, limit: int) -> int:
        before = await server_time(self._pool) - older_than
        rows = await fetch(self._pool, statement, before, limit)
        return int(rows[0][0])

    def _messages(self, rows: Sequence[Any]) -> list[GroupMessage]:
        return [
            GroupMessage(
                group_id=row["group_id"],
                slot=row["slot"],
                seq=row["seq"],
                revision=row["revision"],
                accepted_at=row["accepted_at"],
                sender_id=row["sender_id"],
                sender_device_id=row["sender_device_id"],
                last_sender=row["last_sender"],
                sender_prev=row["sender_prev"],
                message_id=row["message_id"],
                type=row["type"],
                body=row["body"],
                home=self._shard,
                attempts=row["attempts"],
                rest=(row["rest_from"], row["rest_to"]),
            )
            for row in rows
        ]


def _slot(recipient: Recipient) -> int:
    return recipient.slot
