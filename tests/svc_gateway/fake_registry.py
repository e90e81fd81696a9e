"""The session registry in memory; it passes the same tests as the one in Redis."""

import asyncio
from collections.abc import Sequence

from svc_gateway.registry import Claim, Claimed, Route, Unreachable
from svc_gateway.to_service import Address


class MemoryRegistry:
    """`entries` is what Redis would hold, shared by gateways that are given the same dict."""

    def __init__(
        self, instance_id: str, entries: dict[Address, tuple[int, str]] | None = None
    ) -> None:
        self.entries: dict[Address, tuple[int, str]] = {} if entries is None else entries
        self.is_reachable = True
        self.changed = asyncio.Condition()
        self._instance_id = instance_id
        self.has_canary = False

    async def claim(self, routes: Sequence[Route]) -> list[Claim | None]:
        self._look()
        claims = [self._claim(route) for route in routes]
        async with self.changed:
            self.changed.notify_all()
        return [*claims]

    async def release(self, routes: Sequence[Route]) -> None:
        self._look()
        for route in routes:
            if self.entries.get(route.address) == (route.epoch, self._instance_id):
                del self.entries[route.address]
        async with self.changed:
            self.changed.notify_all()

    async def renew_canary(self) -> bool:
        self._look()
        was_there, self.has_canary = self.has_canary, True
        return was_there

    async def remove_canary(self) -> None:
        self._look()
        self.has_canary = False

    def flush(self) -> None:
        self.entries.clear()
        self.has_canary = False

    def _claim(self, route: Route) -> Claim:
        mine = (route.epoch, self._instance_id)
        held = self.entries.get(route.address)
        if held is not None and held[0] > route.epoch:
            return Claim(Claimed.LOST, held[0])
        self.entries[route.address] = mine
        return Claim(Claimed.KEPT if held == mine else Claimed.TAKEN, route.epoch)

    def _look(self) -> None:
        if not self.is_reachable:
            raise Unreachable
