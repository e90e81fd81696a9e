"""What tests of services share: a clock that stands still until it is told to move."""

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

_START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that moves only by `advance`; sleepers wake in the order of their time."""

    def __init__(self, start: datetime = _START) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._slept = asyncio.Condition()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), waking))
        async with self._slept:
            self._slept.notify_all()
        await waking

    @property
    def sleeping(self) -> int:
        """How many are asleep."""
        return sum(not waking.done() for _, _, waking in self._sleepers)

    async def until_sleeping(self, sleepers: int = 1) -> None:
        """Return when so many are asleep: the code under test has come to rest."""
        async with self._slept:
            await self._slept.wait_for(lambda: self.sleeping >= sleepers)

    async def advance(self, seconds: float) -> None:
        """Move on, waking each sleeper at its own time and letting it run before the next."""
        goal = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= goal:
            at, _, waking = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, at)
            if not waking.done():
                waking.set_result(None)
                await settle()
        self._elapsed = goal
        await settle()


async def settle(rounds: int = 10) -> None:
    """Let tasks that can run do so; enough for chains of a few wake-ups without I/O."""
    for _ in range(rounds):
        await asyncio.sleep(0)
