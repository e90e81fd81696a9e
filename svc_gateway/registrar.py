"""Keeps the registry of sessions true, whatever becomes of Redis; a refusal refuses no device."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import ceil
from typing import Protocol

import structlog

from mesh.clock import Clock, SystemClock
from mesh.failpoints import Failpoints
from mesh.tasks import supervised
from svc_gateway.heads import Heads
from svc_gateway.registry import Claim, Claimed, Route, Unreachable
from svc_gateway.sessions import Sessions
from svc_gateway.stream import DeviceStream

log = structlog.get_logger(__name__)

# So many in a round trip: the loop stands still for less than two milliseconds.
_BATCH = 64
# Above it, entries of sessions that are over are left to expire.
_MOST_RELEASES = 10_000


class Registry(Protocol):
    """Where routes are kept; every call may raise Unreachable."""

    async def claim(self, routes: Sequence[Route]) -> list[Claim | None]: ...
    async def release(self, routes: Sequence[Route]) -> None: ...
    async def renew_canary(self) -> bool: ...
    async def remove_canary(self) -> None: ...


class Registrar:
    """Claims, renews and releases the routes of the sessions here.

    One task writes, so that a renewal never comes after the release of the same session. Every
    claim that took an entry is followed by a comparison of heads: what was pushed before it went
    astray.
    """

    def __init__(
        self,
        registry: Registry,
        sessions: Sessions,
        heads: Heads,
        *,
        renewal: timedelta,
        canary_interval: timedelta,
        failpoints: Failpoints,
        on_reachable: Callable[[bool], None] = lambda _is_reachable: None,
        clock: Clock | None = None,
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._heads = heads
        self._renewal = renewal.total_seconds()
        self._canary_interval = canary_interval.total_seconds()
        self._failpoints = failpoints
        self._on_reachable = on_reachable
        self._clock = clock or SystemClock()
        self._claims: dict[DeviceStream, None] = {}
        self._releases: list[Route] = []
        self._work = asyncio.Event()
        # Held by whoever writes to the registry, so that nothing is under way once it was left: a
        # call that is cut off may have been made.
        self._turn = asyncio.Lock()
        self._has_left = False
        self._is_reachable: bool | None = None  # nobody has looked

    def opened(self, stream: DeviceStream) -> None:
        """Claim the route of a session that has just been opened."""
        self._claims[stream] = None
        self._work.set()

    def closed(self, stream: DeviceStream) -> None:
        """Release the route of a session that is over."""
        self._claims.pop(stream, None)
        if len(self._releases) < _MOST_RELEASES:
            self._releases.append(_route_of(stream))
            self._work.set()

    async def run(self) -> None:
        """Write what there is to write; ends by cancellation only."""
        async with asyncio.TaskGroup() as tasks:
            for name, work in (
                ("registry-writer", self._write_all),
                ("registry-canary", self._watch_canary),
                ("registry-renewal", self._renew_all),
            ):
                tasks.create_task(supervised(work, name=name, clock=self._clock), name=name)

    async def leave(self) -> None:
        """Remove what is left of this instance in the registry, and write nothing after that."""
        self._has_left = True
        async with self._turn:
            try:
                await self._release_some(len(self._releases))
                await self._registry.remove_canary()
            except Unreachable:
                log.info("routes are left to expire")

    async def _write_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            async with self._turn:
                await self._write_some()

    async def _write_some(self) -> None:
        try:
            while not self._has_left and (self._claims or self._releases):
                await self._claim_some()
                await self._release_some(_BATCH)
        except Unreachable:
            # All sessions are claimed again when it is back.
            self._claims.clear()
            self._releases.clear()
            self._lost()

    async def _claim_some(self) -> None:
        batch = [*self._claims][:_BATCH]
        for stream in batch:
            del self._claims[stream]
        streams = [stream for stream in batch if not stream.session.is_ended]
        if not streams:
            return
        claims = await self._registry.claim([_route_of(stream) for stream in streams])
        self._failpoints.hit("registry.after_claim")
        for stream, claim in zip(streams, claims, strict=True):
            if claim is not None and claim.outcome is Claimed.LOST:
                stream.session.end_below(claim.epoch, "STREAM_REPLACED")
        self._heads.compare(
            stream
            for stream, claim in zip(streams, claims, strict=True)
            if claim is not None and claim.outcome is Claimed.TAKEN
        )

    async def _release_some(self, most: int) -> None:
        batch, self._releases = self._releases[:most], self._releases[most:]
        if batch:
            await self._registry.release(batch)

    async def _watch_canary(self) -> None:
        while True:
            async with self._turn:
                if not self._has_left:
                    await self._look_at_canary()
            await self._clock.sleep(self._canary_interval)

    async def _look_at_canary(self) -> None:
        try:
            was_there = await self._registry.renew_canary()
        except Unreachable:
            self._lost()
        else:
            self._seen(was_there=was_there)

    async def _renew_all(self) -> None:
        """Renew every route once a renewal's time, a few each second."""
        waiting: list[DeviceStream] = []
        share = 1
        while True:
            if not waiting:
                waiting = [*self._sessions]
                share = max(1, ceil(len(waiting) / self._renewal))
            for stream in waiting[:share]:
                self.opened(stream)
            del waiting[:share]
            await self._clock.sleep(1)

    def _seen(self, *, was_there: bool) -> None:
        if not self._is_reachable:
            log.info("the registry can be reached")
            self._is_reachable = True
            self._heads.blind(is_blind=False)
            self._on_reachable(True)
        elif was_there:
            return
        else:
            log.warning("the registry was emptied: all routes are made again")
        for stream in self._sessions:
            self.opened(stream)
        self._heads.soon()

    def _lost(self) -> None:
        if self._is_reachable is not False:
            log.warning("the registry cannot be reached: sessions look for themselves")
            self._is_reachable = False
            self._heads.blind(is_blind=True)
            self._on_reachable(False)


def _route_of(stream: DeviceStream) -> Route:
    return Route(stream.device.address, stream.session.epoch)
