"""Lanes: what is asked of a shard, in batches, one in flight per lane, in the order of arrival.

A lane knows nothing of messages. It repeats a batch whose outcome is unknown before it takes the
next, follows slots that move, holds back what waits for a moving slot, and ends every item with a
result or a refusal.
"""

import asyncio
import functools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

import structlog

from mesh.errors import Unavailable
from mesh.metrics import BATCH_ITEMS, BATCHES, WAITING
from mesh.postgres import ROWS_BUSY, STORE_ERRORS, is_transient
from mesh.telemetry import OpenSpan, Telemetry
from svc_message.model import Outcome, Refusal
from svc_message.shards.directory import Shards

log = structlog.get_logger(__name__)

# How long a batch is repeated, and an item waits for a moving slot, before it is refused.
_PATIENCE = 2.0
_PAUSE = 0.02
_BATCH_BYTES = 2 * 1024 * 1024
_RETRY_AFTER = timedelta(seconds=1)
_INTERNAL = Refusal("INTERNAL")
_OVERLOADED = Refusal("OVERLOADED", {}, _RETRY_AFTER)
_MOVING = Refusal("SLOT_MOVING", {}, _RETRY_AFTER)
_ASTRAY = frozenset({Outcome.SLOT_MOVING, Outcome.SLOT_MOVED, Outcome.RECIPIENT_UNSEEN})


class Item(Protocol):
    """Something asked of the shard that owns a slot."""

    slot: int
    traces: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes that it holds beside its ids."""

    def settle(self, result: Any) -> None:
        """Take the result, which has an `outcome`, or a Refusal; called once."""


I = TypeVar("I", bound=Item)  # noqa: E741

Run = Callable[[str, Sequence[I]], Awaitable[Sequence[Any]]]
# Finds out whether an item's recipient exists, then says so: None, or why the item is refused.
OnUnseen = Callable[[I, Callable[[Refusal | None], None]], None]
# An item, its key, and since when it waits for a moving slot (0: it does not).
_Entry = tuple[I, bytes, float]


class Lanes(Generic[I]):
    """All lanes of one kind of item."""

    def __init__(
        self,
        kind: str,
        run: Run[I],
        shards: Shards,
        *,
        per_shard: int,
        telemetry: Telemetry,
        on_unseen: OnUnseen[I] | None = None,
        most_batched: int = 64,
        most_waiting: int = 20_000,
        most_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self.shards = shards
        self.kind = kind
        self._on_unseen = on_unseen
        self._per_shard = per_shard
        self.telemetry = telemetry
        self.most_batched = most_batched
        self.most_waiting = most_waiting
        self.most_bytes = most_bytes
        self._lanes = {
            shard: [_Lane(f"{kind}/{shard}/{n}", shard, run, self) for n in range(per_shard)]
            for shard in shards.names
        }
        telemetry.gauge(WAITING, lambda: self.waiting, {"kind": kind})

    def put(self, item: I, key: bytes) -> None:
        """Queue the item; items with one key keep their order."""
        lanes = self._lanes[self.shards.shard_of(item.slot)]
        # The last byte of an id is as good as random.
        lanes[key[-1] % self._per_shard].put(item, key)

    def on_unseen(self, item: I, go_on: Callable[[Refusal | None], None]) -> None:
        """The shard knows nothing of the item's recipient: `go_on` is told whether it exists."""
        assert self._on_unseen is not None  # noqa: S101  only sends have recipients
        self._on_unseen(item, go_on)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self:
                tasks.create_task(lane.work(), name=lane.name)

    async def drained(self) -> None:
        """Return when nothing is queued or in flight."""
        for lane in self:
            await lane.idle.wait()

    def __iter__(self) -> Iterator["_Lane[I]"]:
        return (lane for lanes in self._lanes.values() for lane in lanes)

    @property
    def waiting(self) -> int:
        """How many items are queued."""
        return sum(len(lane) for lane in self)


class _Lane(Generic[I]):
    """One queue of one shard."""

    def __init__(self, name: str, shard: str, run: Run[I], lanes: Lanes[I]) -> None:
        self.name = name
        self._shard = shard
        self._run = run
        self._lanes = lanes
        self._shards = lanes.shards
        self._telemetry = lanes.telemetry
        self._batch_items = lanes.telemetry.histogram(BATCH_ITEMS)
        self._batches = lanes.telemetry.histogram(BATCHES)
        self._items_labels = {"kind": lanes.kind}
        self._labels = {"kind": lanes.kind, "shard": shard}
        self._queue: deque[_Entry[I]] = deque()
        self._parked: dict[bytes, list[_Entry[I]]] = {}  # by key: cannot go on now
        self._bytes = 0
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self._queue) + sum(len(parked) for parked in self._parked.values())

    def put(self, item: I, key: bytes) -> None:
        full = self._bytes > self._lanes.most_bytes or len(self) >= self._lanes.most_waiting
        if full:
            item.settle(_OVERLOADED)
            return
        self._bytes += item.size
        if self._parked and key in self._parked:
            self._parked[key].append((item, key, 0.0))
        else:
            self._queue.append((item, key, 0.0))
            self.idle.clear()
            self._wake.set()

    async def work(self) -> None:
        while True:
            await self._wake.wait()
            while self._queue:
                batch = self._take()
                began = time.perf_counter() if self._telemetry.is_on else 0.0
                spans = self._begin(batch) if began else ()
                results = await self._results([entry[0] for entry in batch])
                for span in spans:
                    span.end()
                if began:
                    self._batch_items.record(len(batch), self._items_labels)
                    self._batches.record(time.perf_counter() - began, self._labels)
                await self._settle(batch, results)
            self._wake.clear()
            if not self._parked:
                self.idle.set()

    def _begin(self, batch: Sequence[_Entry[I]]) -> Sequence[OpenSpan]:
        """A span for each sampled message that the batch is about, and one that links to all."""
        spans: list[OpenSpan] = []
        for item, _, _ in batch:
            if item.traces:
                under = [self._telemetry.start(self._lanes.kind, at) for at in item.traces]
                kept = [span for span in under if span is not None]
                item.traces = [span.trace for span in kept]
                spans += kept
        if spans:
            links = [span.trace for span in spans]
            of_batch = self._telemetry.start(f"batch {self.name}", links=links)
            for span in spans:
                span.set("batch.items", len(batch))
                span.set("shard", self._shard)
            if of_batch is not None:
                of_batch.set("items", len(batch))
                spans.append(of_batch)
        return spans

    def _take(self) -> Sequence[_Entry[I]]:
        batch: list[_Entry[I]] = []
        size = 0
        while self._queue and len(batch) < self._lanes.most_batched and size < _BATCH_BYTES:
            entry = self._queue.popleft()
            size += entry[0].size
            batch.append(entry)
        return batch

    async def _settle(self, batch: Sequence[_Entry[I]], results: Sequence[Any]) -> None:
        astray = []
        for entry, result in zip(batch, results, strict=True):
            if not isinstance(result, Refusal) and result.outcome in _ASTRAY:
                astray.append((entry, result.outcome))
            else:
                self._end(entry[0], result)
        if astray:
            await self._follow(astray)

    def _end(self, item: I, result: Any) -> None:
        self._bytes -= item.size
        item.settle(result)

    async def _follow(self, astray: Sequence[tuple[_Entry[I], int]]) -> None:
        for slot in {entry[0].slot for entry, outcome in astray if outcome == Outcome.SLOT_MOVED}:
            try:
                await self._shards.relocate(slot)
            except STORE_ERRORS:
                log.warning("cannot learn where a slot went", slot=slot, shard=self._shard)
        # From here on nothing waits, so what is queued meanwhile cannot overtake.
        self._gather(astray)
        for key in dict.fromkeys(entry[1] for entry, _ in astray):
            outcome = next(outcome for entry, outcome in astray if entry[1] == key)
            item = self._parked[key][0][0]
            if self._shards.shard_of(item.slot) != self._shard:
                for moved, _, _ in self._parked.pop(key):
                    self._bytes -= moved.size
                    self._lanes.put(moved, key)
            elif outcome == Outcome.RECIPIENT_UNSEEN:
                self._lanes.on_unseen(item, functools.partial(self._return, key))
            else:
                self._wait(key)

    def _gather(self, astray: Sequence[tuple[_Entry[I], int]]) -> None:
        """Park what is astray and, behind it, all that is queued under the same keys."""
        for entry, _ in astray:
            self._parked.setdefault(entry[1], []).append(entry)
        queued, self._queue = self._queue, deque()
        for entry in queued:
            self._parked.get(entry[1], self._queue).append(entry)

    def _wait(self, key: bytes) -> None:
        """Let what is parked wait for its slot a little longer, or refuse what waited enough."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = []
        for item, _, since in self._parked[key]:
            if since and now - since > _PATIENCE:
                self._end(item, _MOVING)
            else:
                waiting.append((item, key, since or now))
        self._parked[key] = waiting
        loop.call_later(_PAUSE, self._return, key)

    def _return(self, key: bytes, refusal: Refusal | None = None) -> None:
        parked = self._parked.pop(key)
        if refusal is not None:
            self._end(parked.pop(0)[0], refusal)
        # To the front and in order: what came under the key since then is behind it.
        self._queue.extendleft(reversed(parked))
        self._wake.set()

    async def _results(self, items: Sequence[I]) -> Sequence[Any]:
        """Run the batch until its outcome is known, or refuse all of it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        pause = _PAUSE
        while True:
            try:
                results = await self._run(self._shard, items)
            except STORE_ERRORS as error:
                if not isinstance(error, Unavailable) and not is_transient(error):
                    return await self._one_by_one(items, error)
                if loop.time() + pause > deadline or self._shards.is_down(self._shard):
                    return self._give_up(items, error)
            else:
                self._shards.tell(self._shard, is_well=True)
                return results
            await asyncio.sleep(pause)
            pause *= 2

    def _give_up(self, items: Sequence[I], error: BaseException) -> Sequence[Refusal]:
        log.warning("batch refused", lane=self.name, items=len(items), error=type(error).__name__)
        if not isinstance(error, ROWS_BUSY):
            self._shards.tell(self._shard, is_well=False)
        refusal = Refusal("SHARD_UNAVAILABLE", {"shard": self._shard}, _RETRY_AFTER)
        return [refusal] * len(items)

    async def _one_by_one(self, items: Sequence[I], error: BaseException) -> Sequence[Any]:
        if len(items) == 1:
            log.error("item refused", lane=self.name, error=type(error).__name__, exc_info=error)
            return [_INTERNAL]
        results: list[Any] = []
        for item in items:
            results.extend(await self._results([item]))
        return results
