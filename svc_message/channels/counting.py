"""How many subscribe: counted in memory and written once a second, one row's update for a crowd.

It is about right: what an instance had counted when it was killed is missing.
"""

import asyncio
from collections import Counter

import structlog

from mesh.errors import WhimbrelError
from svc_message.channels.store import ChannelStore

log = structlog.get_logger(__name__)

_EVERY = 1.0


class SubscriberCounts:
    """Gathers who came and went."""

    def __init__(self, store: ChannelStore) -> None:
        self._store = store
        self._changes: Counter[bytes] = Counter()
        self._wake = asyncio.Event()

    def note(self, channel_id: bytes, change: int) -> None:
        """So many more subscribe, or fewer."""
        self._changes[channel_id] += change
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_EVERY)  # for company
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted."""
        changes, self._changes = self._changes, Counter()
        for channel_id, change in changes.items():
            try:
                if change:
                    await self._store.count(channel_id, change)
            except WhimbrelError as error:
                log.info("a count is put off", error=type(error).__name__)
                self.note(channel_id, change)
