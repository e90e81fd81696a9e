"""A tracker over a real Valkey, with a clock that stands still and a message service of our own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from mesh.errors import Unavailable
from mesh.ids import random_id
from mesh.redis import open_redis
from mesh.testing import ManualClock
from svc_presence.audience import Audience
from svc_presence.model import Activity, Chat, Presence, Terms, Viewing
from svc_presence.store import RedisPresence
from svc_presence.tracker import Tracker

OPEN = Terms(is_visible=True, is_told_typing=True)
FRESH = timedelta(seconds=30)
OFFLINE_AFTER = timedelta(seconds=65)


class Gateway:
    """What a gateway is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[bytes, Presence]] = []  # to whom, what
        self.typing: list[tuple[bytes, Activity, Viewing]] = []

    def tell(self, viewing: Viewing, presence: Presence) -> None:
        self.told.append((viewing.watcher_id, presence))

    def tell_typing(self, user_id: bytes, activity: Activity, viewing: Viewing) -> None:
        self.typing.append((user_id, activity, viewing))


@dataclass
class World:
    """The tracker and what is around it."""

    tracker: Tracker
    store: RedisPresence
    clock: ManualClock
    terms: dict[Viewing, Terms] = field(default_factory=dict)
    asked: list[Viewing] = field(default_factory=list)
    is_away: bool = False  # the message service
    kept: int = 0
    read: int = 0

    @property
    def now(self) -> int:
        return int(self.clock.now().timestamp())

    async def check(self, viewings: Sequence[Viewing]) -> list[Terms]:
        self.asked += viewings
        if self.is_away:
            raise Unavailable("away")
        return [self.terms.get(viewing, OPEN) for viewing in viewings]

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)

    async def watch(self, gateway: Gateway, user_id: bytes, watcher_id: bytes) -> None:
        """Open the chat, and wait for the first word."""
        count = len(gateway.told)
        self.tracker.watch(gateway, Viewing(Chat(user_id), watcher_id))
        await self.until(lambda: len(gateway.told) > count)


@pytest.fixture
async def world(redis_url) -> AsyncIterator[World]:
    clock = ManualClock()
    async with open_redis(redis_url) as redis:
        store = RedisPresence(redis, prefix="test:", keep=timedelta(days=30))
        world = World(None, store, clock)
        keep, last = store.keep, store.last

        async def counted_keep(heard):
            await keep(heard)
            world.kept += len(heard)

        async def counted_last(user_ids):
            world.read += len(user_ids)
            return await last(user_ids)

        store.keep, store.last = counted_keep, counted_last
        world.tracker = Tracker(
            store,
            Audience(world.check, fresh=FRESH, clock=clock),
            offline_after=OFFLINE_AFTER,
            most_watches=10_000,
            clock=clock,
        )
        running = asyncio.create_task(world.tracker.run())
        yield world
        running.cancel()
        await asyncio.wait([running])


@pytest.fixture
def alice() -> bytes:
    return random_id()


@pytest.fixture
def bob() -> bytes:
    return random_id()
