"""The queue that is the shards themselves: domain events in their table, read by named groups.

Entries are put on it by the transactions they tell of (sql/0018_events.sql).
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.queue.event_store import Event, EventStore
from svc_message.queue.model import ClaimLost, Entry, QueueAway
from svc_message.queue.wire import entry_of
from svc_message.shards.directory import Shards

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=10)
_POLL = 0.1


class EventLog:
    """The events of all shards."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self.stores = {name: EventStore(shards.pool(name)) for name in shards.names}

    async def read(self, group: str, holder: str, most: int) -> Mapping[str, Sequence[Event]]:
        """What the group has not committed, by shard: at most so many of each that answers."""
        up = [name for name in self.stores if not self._shards.is_down(name)]
        read = await asyncio.gather(*(self._read(name, group, holder, most) for name in up))
        return {name: events for name, events in zip(up, read, strict=True) if events}

    async def rewind(self, group: str) -> None:
        """Give the group all again that is kept. Raises QueueAway: some shards may not know."""
        try:
            for store in self.stores.values():
                await store.rewind(group)
        except STORE_ERRORS as error:
            raise QueueAway("a shard cannot be reached") from error

    async def commit(self, group: str, holder: str, positions: Mapping[str, int]) -> None:
        """Note what the group needs no more. Raises ClaimLost, QueueAway."""
        try:
            held = [
                await self.stores[shard].commit(group, holder, up_to)
                for shard, up_to in positions.items()
            ]
        except STORE_ERRORS as error:
            raise QueueAway("a shard cannot be reached") from error
        if not all(held):
            raise ClaimLost("another consumer of the group reads these events now")

    async def _read(self, shard: str, group: str, holder: str, most: int) -> Sequence[Event] | None:
        try:
            return await self.stores[shard].read(group, holder, _LEASE, most)
        except STORE_ERRORS as error:
            log.warning("events wait", shard=shard, error=type(error).__name__)
            return None


class PostgresQueue:
    """A consumer of the events of all shards, as Queue says; `most` is of each shard."""

    def __init__(self, events: EventLog, group: str, holder: str) -> None:
        self._events = events
        self._group = group
        self._holder = holder
        self.positions: dict[str, int] = {}
        """Up to where each shard's events were received last."""

    async def receive(self, most: int, *, within: timedelta) -> Sequence[Entry]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within.total_seconds()
        while True:
            read = await self._events.read(self._group, self._holder, most)
            left = deadline - loop.time()
            if read or left <= 0:
                break
            await asyncio.sleep(min(_POLL, left))
        # Never those of an earlier time: the group may have been rewound since.
        self.positions = {shard: events[-1].entry_id for shard, events in read.items()}
        return [entry_of(event) for events in read.values() for event in events]

    async def commit(self) -> None:
        positions, self.positions = self.positions, {}
        await self._events.commit(self._group, self._holder, positions)

    async def close(self) -> None:
        for shard, store in self._events.stores.items():
            try:
                await store.release(self._group, self._holder)
            except STORE_ERRORS as error:
                # Its lease runs out.
                log.warning("events stay held", shard=shard, error=type(error).__name__)
