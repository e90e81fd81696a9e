"""News of devices on their way to the push service: bounded, the oldest lost first."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime

from svc_message.pushing.store import Device

_MOST = 50_000
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Wake:
    """Something waits for a device that has no session."""

    device: Device
    epoch: int
    acked_pos: int
    is_urgent: bool


@dataclass(frozen=True, slots=True)
class Connected:
    """A device has opened a session."""

    device: Device
    epoch: int


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A device is no more, since then."""

    device: Device
    at: datetime


AnyNews = Wake | Connected | Unlinked


class News:
    """What is still to be told. What is lost here, the sweep tells again, or an epoch shows."""

    def __init__(self) -> None:
        self._untold: deque[AnyNews] = deque(maxlen=_MOST)
        self._added = asyncio.Event()

    def add(self, news: AnyNews) -> None:
        """Have it told."""
        self._untold.append(news)
        self._added.set()

    async def batches(self) -> AsyncGenerator[list[AnyNews], None]:
        """What is to be told, for ever."""
        while True:
            self._added.clear()
            while self._untold:
                most = min(len(self._untold), _AT_ONCE)
                yield [self._untold.popleft() for _ in range(most)]
            await self._added.wait()
