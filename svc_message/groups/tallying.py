"""Tallies: how far a group's members are with each sender's messages, told in few words.

What members have received and read is merged into the group's own receipts, a row a member. From
those the messages that are concerned are counted, at most every quarter of a second a group, and
the counts merged into their senders' receipts of the group, which take a version each time. The
members' entries stay in their outboxes until that is done, so that no crash can lose a tally.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.ids import slot_of
from mesh.postgres import Pool, fetch
from mesh.telemetry import Telemetry
from svc_message.lanes import Lanes
from svc_message.model import Outcome, Refusal
from svc_message.requests import ReceiptChange, Request
from svc_message.results import PlainResult, ReceiptRow
from svc_message.shards.directory import Shards

_COUNT = """
SELECT c.item, t.outcome, t.sender_id, t.seq, t.delivered_to, t.read_by
FROM unnest($1::smallint[], $2::bytea[], $3::bigint[], $4::bigint[])
    WITH ORDINALITY AS c (slot, id, after, up_to, item)
CROSS JOIN LATERAL tally(c.slot, c.id, c.after, c.up_to, $5) AS t
"""
_PUT = "SELECT * FROM put_tallies($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_EVERY = 0.25
_MOST_MESSAGES = 100

Tally = tuple[int, int, int]  # seq, delivered to, read by
Settle = Callable[[ReceiptChange], None]


@dataclass(slots=True, kw_only=True)
class _Count(Request):
    """Count the messages after < seq <= to of a group, for which these changes came."""

    group_id: bytes
    after: int
    to: int
    changes: list[ReceiptChange]
    authors: Sequence[bytes]  # of each trace


@dataclass(slots=True, kw_only=True)
class _Put(Request):
    """What one sender is to be told of a group."""

    user_id: bytes
    group_id: bytes
    tallies: list[Tally]


@dataclass(slots=True)
class _Telling:
    """Senders who are being told of a count."""

    count: _Count
    awaited: int
    settle_later: bool = False


@dataclass(slots=True)
class _Wave:
    """What has come for a group since it was last counted."""

    after: int
    to: int
    changes: list[ReceiptChange] = field(default_factory=list)


class Tallies:
    """Counts for senders what the members of their groups have received and read."""

    def __init__(
        self,
        shards: Shards,
        pools: Mapping[str, Pool],
        *,
        tell: Callable[[ReceiptRow], None],
        done: Settle,
        failed: Settle,
        telemetry: Telemetry,
    ) -> None:
        self._pools = pools
        self._tell = tell
        self._done = done
        self._failed = failed
        self._waves: dict[bytes, _Wave] = {}
        self._counts: Lanes[_Count] = Lanes(
            "tally", self._count, shards, per_shard=1, telemetry=telemetry, most_batched=8
        )
        self._puts: Lanes[_Put] = Lanes(
            "put-tally", self._put, shards, per_shard=1, telemetry=telemetry
        )

    def note(self, change: ReceiptChange) -> None:
        """A member's change is merged into the group's receipts; its entry waits for the tally."""
        after, to = _span(change)
        wave = self._waves.get(change.user_id)
        if wave is None:
            wave = self._waves[change.user_id] = _Wave(after, to)
            asyncio.get_running_loop().call_later(_EVERY, self._ask, change.user_id)
        wave.after, wave.to = min(wave.after, after), max(wave.to, to)
        wave.changes.append(change)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._counts.run(), name="tally-lanes")
            tasks.create_task(self._puts.run(), name="put-tally-lanes")

    async def drained(self) -> None:
        """Return when nothing is being counted."""
        await self._counts.drained()
        await self._puts.drained()

    def _ask(self, group_id: bytes) -> None:
        wave = self._waves.pop(group_id)
        count = _Count(
            slot=slot_of(group_id),
            done=self._counted,
            group_id=group_id,
            after=wave.after,
            to=wave.to,
            changes=wave.changes,
            traces=[at for change in wave.changes for at in change.traces],
            authors=[author for change in wave.changes for author in change.authors],
        )
        self._counts.put(count, group_id)

    def _counted(self, count: _Count, result: PlainResult | Refusal) -> None:
        if isinstance(result, Refusal) or result.outcome != Outcome.DONE:
            self._settle(count, self._failed)
            return
        by_sender: dict[bytes, list[Tally]] = defaultdict(list)
        for sender_id, *tally in result.row:
            by_sender[sender_id].append((*tally,))
        if not by_sender:
            self._settle(count, self._done)
        telling = _Telling(count, len(by_sender))
        traced = list(zip(count.traces, count.authors, strict=False))
        for user_id, tallies in by_sender.items():
            request = _Put(
                slot=slot_of(user_id),
                done=self._told,
                origin=telling,
                user_id=user_id,
                group_id=count.group_id,
                tallies=sorted(tallies),
                traces=[at for at, author_id in traced if author_id == user_id],
            )
            self._puts.put(request, user_id)

    def _told(self, put: _Put, result: PlainResult | Refusal) -> None:
        telling: _Telling = put.origin
        telling.awaited -= 1
        if isinstance(result, Refusal):
            telling.settle_later = True
        elif result.row is not None:
            result.row.traces = put.traces
            self._tell(result.row)
        if not telling.awaited:
            self._settle(telling.count, self._failed if telling.settle_later else self._done)

    def _settle(self, count: _Count, settle: Settle) -> None:
        for change in count.changes:
            settle(change)

    async def _count(self, shard: str, counts: Sequence[_Count]) -> Sequence[PlainResult]:
        rows = await fetch(
            self._pools[shard],
            _COUNT,
            [count.slot for count in counts],
            [count.group_id for count in counts],
            [count.after for count in counts],
            [count.to for count in counts],
            _MOST_MESSAGES,
        )
        results = [PlainResult(Outcome.DONE, []) for _ in counts]
        for item, outcome, *tally in rows:
            results[item - 1].outcome = outcome
            results[item - 1].row.append(tally)
        return results

    async def _put(self, shard: str, puts: Sequence[_Put]) -> Sequence[PlainResult]:
        order = sorted(range(len(puts)), key=lambda i: puts[i].user_id)
        items = [puts[i] for i in order]
        ends = [0]
        for item in items:
            ends.append(ends[-1] + len(item.tallies))
        tallies = [tally for item in items for tally in item.tallies]
        rows = await fetch(
            self._pools[shard],
            _PUT,
            list({item.slot for item in items}),
            [item.slot for item in items],
            [item.user_id for item in items],
            [item.group_id for item in items],
            [end + 1 for end in ends[:-1]],
            ends[1:],
            *([tally[column] for tally in tallies] for column in range(3)),
        )
        results: list[Any] = [None] * len(puts)
        for row in rows:
            item = items[row["item"] - 1]
            told = None if row["version"] is None else told_row(item.user_id, item.group_id, row)
            results[order[row["item"] - 1]] = PlainResult(row["outcome"], told)
        return results


def _span(change: ReceiptChange) -> tuple[int, int]:
    """The seqs whose counts a change may have altered: (after, to]."""
    to = max(change.delivered_to, change.read_up_to)
    if not change.read_up_to:
        return change.delivered_after, to
    # What was read before is not known: the latest messages are counted again.
    return max(0, change.read_up_to - _MOST_MESSAGES), to


def told_row(user_id: bytes, group_id: bytes, row: Any) -> ReceiptRow:
    """The receipt of a group as its sender is told it."""
    tallies = zip(row["seqs"], row["delivered_to"], row["read_by"], strict=True)
    return ReceiptRow(user_id, group_id, row["version"], (), 0, tuple(tallies))
