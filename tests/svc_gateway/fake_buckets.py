"""Buckets in memory that are filled by hand, and counted."""

from collections.abc import Sequence
from datetime import timedelta

from mesh.limits import BucketsUnreachable, Grant, Limit


class MemoryBuckets:
    """Every bucket has what its burst says until it is taken; nothing comes back."""

    def __init__(self) -> None:
        self.spent: dict[tuple[str, str], int] = {}
        self.is_reachable = True
        self.round_trips = 0

    async def take(self, wants: Sequence[tuple[Limit, str, int]]) -> list[Grant]:
        self.round_trips += 1
        if not self.is_reachable:
            raise BucketsUnreachable
        return [self._take(*want) for want in wants]

    def _take(self, limit: Limit, key: str, amount: int) -> Grant:
        spent = self.spent.get((limit.name, key), 0)
        left = limit.burst - spent
        if left < amount:
            return Grant(0, timedelta(seconds=(amount - left) / limit.per_second))
        taken = min(left, max(amount, limit.lot))
        self.spent[limit.name, key] = spent + taken
        return Grant(taken, timedelta(0))
