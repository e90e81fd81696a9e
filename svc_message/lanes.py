"""Lanes: what is asked of a shard, in batches, one in flight per lane, in the order of arrival.

A lane knows nothing of messages. It repeats a batch whose outcome is unknown before it takes the
next, follows slots that move, holds back what waits for a moving slot, and ends every item with a
result or a refusal.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

import asyncpg
import structlog

from mesh.errors import Unavailable
from mesh.metrics import BATCH_ITEMS, BATCHES
from mesh.postgres import is_transient
from mesh.telemetry import Telemetry
from svc_message.model import Outcome, Refusal
from svc_message.shards.directory import Shards

log = structlog.get_logger(__name__)

# How long a batch is repeated, and an item waits for a moving slot, before it is refused.
_PATIENCE = 2.0
_PAUSE = 0.02
_RETRY_AFTER = timedelta(seconds=1)
_INTERNAL = Refusal("INTERNAL")
_OVERLOADED = Refusal("OVERLOADED", {}, _RETRY_AFTER)
_MOVING = Refusal("SLOT_MOVING", {}, _RETRY_AFTER)
_ASTRAY = frozenset({Outcome.SLOT_MOVING, Outcome.SLOT_MOVED})


class Result(Protocol):
    """What a shard said of an item."""

    @property
    def outcome(self) -> int:
        """An Outcome."""


R = TypeVar("R", bound=Result)


class Item(Protocol[R]):
    """Something asked of the shard that owns a slot."""

    slot: int

    def settle(self, result: Any) -> None:
        """Take the result, an R or a Refusal; called once."""


I = TypeVar("I", bound=Item[Any])  # noqa: E741

Run = Callable[[str, Sequence[I]], Awaitable[Sequence[Any]]]
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
        most_batched: int = 64,
        most_waiting: int = 20_000,
    ) -> None:
        self._shards = shards
        self._per_shard = per_shard
        self._lanes = {
            shard: [
                _Lane(
                    f"{kind}/{shard}/{n}",
                    kind,
                    shard,
                    run,
                    self,
                    telemetry,
                    most_batched,
                    most_waiting,
                )
                for n in range(per_shard)
            ]
            for shard in shards.names
        }

    def put(self, item: I, key: bytes) -> None:
        """Queue the item; items with one key keep their order."""
        lanes = self._lanes[self._shards.shard_of(item.slot)]
        # The last byte of an id is as good as random.
        lanes[key[-1] % self._per_shard].put(item, key)

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

    def __init__(
        self,
        name: str,
        kind: str,
        shard: str,
        run: Run[I],
        lanes: Lanes[I],
        telemetry: Telemetry,
        most_batched: int,
        most_waiting: int,
    ) -> None:
        self.name = name
        self._kind = kind
        self._shard = shard
        self._run = run
        self._lanes = lanes
        self._shards = lanes._shards  # noqa: SLF001  its own lanes
        self._telemetry = telemetry
        self._batch_items = telemetry.histogram(BATCH_ITEMS)
        self._most_batched = most_batched
        self._most_waiting = most_waiting
        self._queue: deque[_Entry[I]] = deque()
        self._held: dict[int, list[_Entry[I]]] = {}  # by slot: waits until it has moved
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()

    def __len__(self) -> int:
        return len(self._queue) + sum(len(held) for held in self._held.values())

    def put(self, item: I, key: bytes) -> None:
        if len(self._queue) >= self._most_waiting:
            item.settle(_OVERLOADED)
        elif self._held and item.slot in self._held:
            self._held[item.slot].append((item, key, 0.0))
        else:
            self._queue.append((item, key, 0.0))
            self.idle.clear()
            self._wake.set()

    async def work(self) -> None:
        while True:
            await self._wake.wait()
            while self._queue:
                batch = [
                    self._queue.popleft() for _ in range(min(len(self._queue), self._most_batched))
                ]
                self._batch_items.record(len(batch))
                with self._telemetry.span(BATCHES.name):
                    results = await self._results([entry[0] for entry in batch])
                await self._settle(batch, results)
            self._wake.clear()
            if not self._held:
                self.idle.set()

    async def _settle(self, batch: Sequence["_Entry[I]"], results: Sequence[Any]) -> None:
        astray = []
        for entry, result in zip(batch, results, strict=True):
            if not isinstance(result, Refusal) and result.outcome in _ASTRAY:
                astray.append((entry, result.outcome))
            else:
                entry[0].settle(result)
        if astray:
            await self._follow(astray)

    async def _follow(self, astray: Sequence[tuple["_Entry[I]", int]]) -> None:
        for slot in {entry[0].slot for entry, outcome in astray if outcome == Outcome.SLOT_MOVED}:
            try:
                await self._shards.relocate(slot)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, Unavailable):
                log.warning("cannot learn where a slot went", slot=slot, shard=self._shard)
        for (item, key, since), _ in astray:
            if self._shards.shard_of(item.slot) != self._shard:
                self._lanes.put(item, key)
            else:
                self._hold(item, key, since)

    def _hold(self, item: I, key: bytes, since: float) -> None:
        loop = asyncio.get_running_loop()
        if since and loop.time() - since > _PATIENCE:
            item.settle(_MOVING)
            return
        if item.slot not in self._held:
            self._held[item.slot] = []
            loop.call_later(_PAUSE, self._release, item.slot)
        self._held[item.slot].append((item, key, since or loop.time()))

    def _release(self, slot: int) -> None:
        # To the front and in order: what came for the slot since then is in the same list.
        self._queue.extendleft(reversed(self._held.pop(slot)))
        self._wake.set()

    async def _results(self, items: Sequence[I]) -> Sequence[Any]:
        """Run the batch until its outcome is known, or refuse all of it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        pause = _PAUSE
        while True:
            try:
                results = await self._run(self._shard, items)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, Unavailable) as error:
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
