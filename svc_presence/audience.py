"""What the watchers of chats may learn, as the message service last said; remembered, bounded."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog

from mesh.clock import Clock
from mesh.errors import WhimbrelError
from svc_presence.model import Terms, Viewing

log = structlog.get_logger(__name__)

_MOST_ASKED = 250  # in one call
_MOST_WAITING = 10_000
_MOST_KNOWN = 200_000
_PAUSE_SECONDS = 1.0

# Asks the message service, in the order of the viewings; raises Unavailable.
Ask = Callable[[Sequence[Viewing]], Awaitable[list[Terms]]]
Told = Callable[[Viewing, Terms], None]


class Audience:
    """Terms by viewing. What is not known is asked for, in batches, and told when it is there."""

    def __init__(self, ask: Ask, *, fresh: timedelta, clock: Clock) -> None:
        self._ask = ask
        self._fresh = fresh.total_seconds()
        self._clock = clock
        # With the time of the answer; the newest last.
        self._known: OrderedDict[Viewing, tuple[float, Terms]] = OrderedDict()
        self._waiting: dict[Viewing, set[Told]] = {}
        self._wake = asyncio.Event()

    def known(self, viewing: Viewing) -> Terms | None:
        """The terms, if they are known and fresh."""
        known = self._known.get(viewing)
        if known is None or self._clock.monotonic() - known[0] > self._fresh:
            return None
        return known[1]

    def want(self, viewing: Viewing, told: Told) -> None:
        """Tell the terms: now if they are known, else once they are, or never if too many wait."""
        terms = self.known(viewing)
        if terms is not None:
            told(viewing, terms)
        elif viewing in self._waiting or len(self._waiting) < _MOST_WAITING:
            self._waiting.setdefault(viewing, set()).add(told)
            self._wake.set()

    async def run(self) -> None:
        """Ask for what is wanted, one call at a time; ends by cancellation only."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._ask_some()

    async def _ask_some(self) -> None:
        asked = [*self._waiting][:_MOST_ASKED]
        try:
            answers = await self._ask(asked)
        except WhimbrelError as error:
            log.warning("the message service says nothing of audiences", reason=error.reason)
            await self._clock.sleep(_PAUSE_SECONDS)
            return
        now = self._clock.monotonic()
        for viewing, terms in zip(asked, answers, strict=True):
            self._known[viewing] = now, terms
            self._known.move_to_end(viewing)
            for told in self._waiting.pop(viewing):
                told(viewing, terms)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
