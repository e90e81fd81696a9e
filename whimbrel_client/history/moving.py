"""History as an application sees it: what came from the primary, and how it goes on."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import timedelta

from whimbrel_client.clock import ServerClock
from whimbrel_client.history.store import HistoryStore
from whimbrel_client.life import Life
from whimbrel_client.model import HistoryProgress, Message
from whimbrel_client.sync import Sending

_PAGE = 256

# Senders may write by a list of devices that the mesh read up to a second before. What does not
# name a new device for that reason is in its history if it asks after that.
_STALE_SECONDS = 2.0


class HistoryMoves:
    """What was said before a device was linked, on its way from the primary to that device."""

    def __init__(
        self,
        store: HistoryStore,
        *,
        clock: ServerClock,
        life: Life,
        offer: Callable[[Iterable[Sending]], None],
    ) -> None:
        """`offer` takes what was queued to be sent."""
        self._store = store
        self._clock = clock
        self._life = life
        self._offer = offer
        # Rings when a part has gone or come.
        self.moved = life.bell()

    # On the device that was linked.

    async def messages(self, *, before: int = 1) -> AsyncGenerator[Message, None]:
        """What came from the primary, then each as it comes, until all has: downwards by cursor.

        Of a conversation the newest come first. All of it lies before what `Client.messages` has.
        """
        while True:
            ring = self.moved.next_ring()
            progress = await self._store.progress()
            page = await self._store.messages(before, limit=_PAGE)
            for message in page:
                before = message.cursor
                yield message
            if not page:
                if progress.is_complete:
                    return
                self._life.raise_if_ended()
                await ring.wait()

    async def progress(self) -> AsyncGenerator[HistoryProgress, None]:
        """How much has come, now and whenever more has, until all has."""
        while True:
            ring = self.moved.next_ring()
            progress = await self._store.progress()
            yield progress
            if progress.is_complete:
                return
            self._life.raise_if_ended()
            await ring.wait()

    # On the primary.

    async def offered(self, history: timedelta) -> bytes:
        """Offer what was accepted in so long; returns what is to ask for it, empty for nothing."""
        if not history:
            return b""
        now_ms = self._clock.now_ms()
        since_ms = max(0, now_ms - history // timedelta(milliseconds=1))
        return await self._store.offer(since_ms=since_ms, now_ms=now_ms)

    async def withdraw(self, token: bytes) -> None:
        """The offer reached nobody."""
        await self._store.withdraw(token)

    async def revoked(self, device_id: int) -> None:
        """Offer nothing more to a device that is no more."""
        await self._store.revoked(device_id)

    async def taken(self) -> None:
        """Return when whoever was offered a history has all of it. Raises what ends the client."""
        while True:
            ring = self.moved.next_ring()
            if not await self._store.count_open():
                return
            self._life.raise_if_ended()
            await ring.wait()

    # Inside.

    async def run(self) -> None:
        """Ask for what is still to come; an answer to an earlier question is harmless."""
        linked_at = await self._store.linked_at()
        if linked_at is None:
            return
        passed = (self._clock.now_ms() - linked_at) / 1000
        await asyncio.sleep(max(0.0, _STALE_SECONDS - max(0.0, passed)))
        self._offer(await self._store.ask())
