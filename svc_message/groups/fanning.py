"""Fan-out: what a group has accepted is written into every member's queues.

The instance that accepted a message fans it out at once; whoever finds its entry overdue takes it
under a committed lease. A group's messages go in runs, a run in chunks of members by shard. The
`prev` test makes every writing harmless, however often it happens, so an entry goes only when all
have the message, and whoever begins again finds what is written by that test alone.
"""

import asyncio
import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from typing import Any

import structlog

from mesh.backoff import Backoff
from mesh.failpoints import Failpoints
from mesh.metrics import COPIES
from mesh.postgres import STORE_ERRORS
from mesh.telemetry import Telemetry
from svc_message.groups.message_store import GroupMessageStore
from svc_message.groups.requests import (
    Chunk,
    ChunkResult,
    GroupMessage,
    Recipient,
    Run,
    RunPlace,
)
from svc_message.groups.roster import Roster
from svc_message.groups.settling import Settler
from svc_message.lanes import Lanes
from svc_message.model import Outcome, Refusal
from svc_message.routing import Router
from svc_message.shards.directory import Shards
from svc_message.trace_store import TraceStore
from svc_message.traces import note_run_traces

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=5)
_TAKEN = 256
_GROUPS_AT_ONCE = 16
_MOST_MESSAGES = 64
_MOST_RUN_BYTES = 512 * 1024
_MOST_MEMBERS = 128
_MOST_ROWS = 2048
# What is not carried at once is found when it is overdue: memory stays bounded.
_MOST_CARRIED = 20_000
_SOON = timedelta(milliseconds=200)
_LONGEST = timedelta(seconds=60)


class FanOut:
    """Carries messages of groups to their members."""

    def __init__(
        self,
        shards: Shards,
        stores: Mapping[str, GroupMessageStore],
        traces: Mapping[str, TraceStore],
        router: Router,
        *,
        lanes_per_shard: int,
        sweep: timedelta,
        most_pending: int,
        telemetry: Telemetry,
        failpoints: Failpoints,
    ) -> None:
        self._shards = shards
        self._stores = stores
        self._traces = traces
        self._router = router
        self._sweep = sweep.total_seconds()
        self._most_pending = most_pending
        self._failpoints = failpoints
        self._copied = telemetry.counter(COPIES)
        self._roster = Roster(shards, stores, telemetry=telemetry)
        self._chunks: Lanes[Chunk] = Lanes(
            "fan-out",
            self._write,
            shards,
            per_shard=lanes_per_shard,
            telemetry=telemetry,
            most_batched=8,
        )
        self._settlers = {name: Settler(stores[name], self._settled) for name in shards.names}
        self._waiting: dict[bytes, list[GroupMessage]] = {}  # by group, ascending
        self._ready: asyncio.Queue[bytes] = asyncio.Queue()  # groups nobody works at
        self._carried: set[tuple[bytes, int]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._full: set[str] = set()

    @property
    def is_refusing(self) -> bool:
        """Whether so much waits, for a shard that is down or in here, that groups take no more."""
        return bool(self._full) or len(self._carried) >= _MOST_CARRIED

    def carry(self, message: GroupMessage) -> None:
        """Bring a message to its group's members; its entry is committed."""
        if message.key in self._carried or len(self._carried) >= _MOST_CARRIED:
            return
        self._carried.add(message.key)
        self._idle.clear()
        waiting = self._waiting.get(message.group_id)
        if waiting is None:
            self._waiting[message.group_id] = [message]
            self._ready.put_nowait(message.group_id)
        else:
            bisect.insort(waiting, message, key=attrgetter("seq"))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._roster.run(), name="roster")
            tasks.create_task(self._chunks.run(), name="fan-out-lanes")
            for number in range(_GROUPS_AT_ONCE):
                tasks.create_task(self._work(), name=f"fan-out/{number}")
            for name in self._shards.names:
                tasks.create_task(self._settlers[name].run(), name=f"settle-runs/{name}")
                tasks.create_task(self._sweep_for_ever(name), name=f"sweep-runs/{name}")

    async def drained(self) -> None:
        """Return when nothing is on its way."""
        await self._idle.wait()

    async def _work(self) -> None:
        while True:
            group_id = await self._ready.get()
            run = self._next_run(self._waiting[group_id])
            await self._fan_out(run)
            if self._waiting[group_id]:
                self._ready.put_nowait(group_id)
            else:
                del self._waiting[group_id]

    def _next_run(self, waiting: list[GroupMessage]) -> Run:
        """Take the lowest messages that go to the same members, as far as they are consecutive."""
        first = waiting[0]
        size = count = 0
        for message in waiting[:_MOST_MESSAGES]:
            is_alike = (message.revision, message.rest) == (first.revision, first.rest)
            size += len(message.body)
            is_too_much = bool(count) and size > _MOST_RUN_BYTES
            if not is_alike or message.seq != first.seq + count or is_too_much:
                break
            count += 1
        run = Run(waiting[:count])
        del waiting[:count]
        return run

    async def _fan_out(self, run: Run) -> None:
        """Write the run for all its members; settle it, or what is left of it."""
        recipients = await self._roster.recipients(run)
        if recipients is None:
            self._postpone(run, run.messages[0].rest, is_soon=False)
            return
        missed = [
            miss
            for results in await asyncio.gather(*map(self._put, self._chunks_of(run, recipients)))
            for miss in results
        ]
        self._failpoints.hit("fan_out.before_settle")
        if not missed:
            for message in run.messages:
                self._settlers[message.home].remove(message)
            return
        slots = sorted(member.slot for member, _ in missed)
        is_soon = all(outcome == Outcome.NOT_YET for _, outcome in missed)
        self._postpone(run, (slots[0], slots[-1]), is_soon=is_soon)

    def _chunks_of(self, run: Run, recipients: Sequence[Recipient]) -> list[Chunk]:
        first, last = run.messages[0].rest
        by_shard: dict[str, list[Recipient]] = defaultdict(list)
        for member in recipients:
            if first <= member.slot <= last:
                by_shard[self._shards.shard_of(member.slot)].append(member)
        most = min(_MOST_MEMBERS, max(1, _MOST_ROWS // len(run.messages)))
        traces = [message.trace for message in run.sampled]
        return [
            Chunk(
                slot=members[start].slot,
                done=_resolve,
                run=run,
                recipients=members[start : start + most],
                traces=() if start else traces,  # one span a shard is enough
            )
            for members in by_shard.values()
            for start in range(0, len(members), most)
        ]

    async def _put(self, chunk: Chunk) -> Sequence[tuple[Recipient, int]]:
        """Have the chunk written; the members who do not have it, with why."""
        if self._shards.is_down(self._shards.shard_of(chunk.slot)):
            return [(member, Outcome.REFUSED) for member in chunk.recipients]
        written: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        chunk.origin = written
        self._chunks.put(chunk, chunk.run.group_id)
        result: ChunkResult | Refusal = await written
        if isinstance(result, Refusal):
            return [(member, Outcome.REFUSED) for member in chunk.recipients]
        self._copied.add(len(result.places) * len(chunk.run.messages))
        self._router.deliver_run(chunk.run, _traced(result.places, chunk))
        for slot in {m.slot for m, outcome in result.missed if outcome == Outcome.SLOT_MOVED}:
            await self._relocate(slot)
        return result.missed

    async def _relocate(self, slot: int) -> None:
        try:
            await self._shards.relocate(slot)
        except STORE_ERRORS:
            log.warning("cannot learn where a slot went", slot=slot)

    async def _write(self, shard: str, chunks: Sequence[Chunk]) -> Sequence[ChunkResult]:
        await note_run_traces(self._traces[shard], chunks)
        self._failpoints.hit("fan_out.before_chunk")
        results: list[ChunkResult] = []
        for some in _disjoint(chunks):
            results += await self._stores[shard].write(some)
        self._failpoints.hit("fan_out.chunk_written")
        return results

    def _postpone(self, run: Run, rest: tuple[int, int], *, is_soon: bool) -> None:
        for message in run.messages:
            message.rest = rest
            wait = _SOON if is_soon else min(timedelta(seconds=2**message.attempts), _LONGEST)
            self._settlers[message.home].postpone(message, wait)

    def _settled(self, messages: Sequence[GroupMessage]) -> None:
        self._carried.difference_update(message.key for message in messages)
        if not self._carried:
            self._idle.set()

    async def _sweep_for_ever(self, shard: str) -> None:
        backoff = Backoff()
        while True:
            await asyncio.sleep(self._sweep)
            try:
                while len(self._carried) < _MOST_CARRIED // 2 and await self._sweep_once(shard):
                    pass
                backoff.reset()
            except STORE_ERRORS as error:
                # The relay's sweep of the same shard tells how it is.
                log.warning("sweep failed", shard=shard, error=type(error).__name__)
                await asyncio.sleep(backoff.next())

    async def _sweep_once(self, shard: str) -> bool:
        """Take what is overdue on one shard; whether there may be more."""
        store = self._stores[shard]
        taken = await store.take(_TAKEN, _LEASE, self._shards.down_slots())
        for message in taken:
            self.carry(message)
        await self._bound(store, shard)
        return len(taken) == _TAKEN

    async def _bound(self, store: GroupMessageStore, shard: str) -> None:
        """Refuse more while this shard's outbox holds too much for shards that are down."""
        down = self._shards.down_slots()
        pending = await store.pending(down[0], down[-1], self._most_pending) if down else 0
        if pending >= self._most_pending:
            self._full.add(shard)
        else:
            self._full.discard(shard)


def _resolve(chunk: Chunk, result: Any) -> None:
    chunk.origin.set_result(result)


def _traced(places: Sequence[RunPlace], chunk: Chunk) -> Sequence[RunPlace]:
    """The places, with where the traces of the chunk's messages stand now."""
    if not chunk.traces:
        return places
    sampled = zip(chunk.run.sampled, chunk.traces, strict=False)
    traces = {message.seq: at for message, at in sampled}
    return [replace(place, traces=traces) for place in places]


def _disjoint(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """The chunks in their order, in as few parts as have nobody twice."""
    part: list[Chunk] = []
    users: set[bytes] = set()
    for chunk in chunks:
        theirs = {member.user_id for member in chunk.recipients}
        if not users.isdisjoint(theirs):
            yield part
            part, users = [], set()
        part.append(chunk)
        users |= theirs
    if part:
        yield part
