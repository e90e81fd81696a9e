"""The shards that this instance can reach, and which of them it believes to own each slot."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import structlog

from mesh.errors import Unavailable
from mesh.ids import SLOTS
from mesh.postgres import STORE_ERRORS, Connection, Pool, acquired, fetch, is_transient
from svc_message.model import Outcome

log = structlog.get_logger(__name__)

T = TypeVar("T")

_ACQUIRE = timedelta(seconds=1)
_PATIENCE = 2.0
_PAUSE = 0.02
_READ_MAP = "SELECT slot, state, moved_to, version FROM slot"
_READ_SLOT = "SELECT moved_to, version FROM slot WHERE slot = $1"
_INCOMING = 3


class ShardUnavailable(Unavailable):
    """The shard cannot be reached now; what was asked of it may or may not have happened."""

    reason = "SHARD_UNAVAILABLE"


class SlotMoving(Unavailable):
    """The slot is between two shards for longer than a caller waits."""

    reason = "SLOT_MOVING"


class Shards:
    """Finds the shard of a slot and follows it when it moves."""

    def __init__(
        self, pools: Mapping[str, Pool], on_health: Callable[[str, bool], None] | None = None
    ) -> None:
        self._pools = dict(pools)
        self._on_health = on_health
        first = next(iter(self._pools))
        self._owner = [first] * SLOTS
        self._version = [-1] * SLOTS
        self._down: set[str] = set()

    @property
    def names(self) -> Sequence[str]:
        """Every shard, in the order of the settings."""
        return tuple(self._pools)

    @property
    def owners(self) -> Sequence[str]:
        """The believed shard of each slot."""
        return self._owner

    def shard_of(self, slot: int) -> str:
        """Where to ask first."""
        return self._owner[slot]

    def pool(self, shard: str) -> Pool:
        """The connections to a shard."""
        return self._pools[shard]

    def down_slots(self) -> list[int]:
        """The slots of shards that could not be reached last time."""
        if not self._down:
            return []
        return [slot for slot, shard in enumerate(self._owner) if shard in self._down]

    def is_down(self, shard: str) -> bool:
        """Whether the shard could not be reached last time."""
        return shard in self._down

    def tell(self, shard: str, *, is_well: bool) -> None:
        """Say how a call to the shard went."""
        if is_well == (shard not in self._down):
            return
        if is_well:
            self._down.discard(shard)
            log.info("shard can be reached", shard=shard)
        else:
            self._down.add(shard)
            log.warning("shard cannot be reached", shard=shard)
        if self._on_health is not None:
            self._on_health(shard, is_well)

    async def read_maps(self) -> None:
        """Learn the map from every shard that answers; the newest word on a slot counts."""
        await asyncio.gather(*(self._read_map(shard) for shard in self._pools))

    async def relocate(self, slot: int) -> None:
        """Learn from the believed owner of a slot where the slot went."""
        shard = self._owner[slot]
        for row in await fetch(self._pools[shard], _READ_SLOT, slot):
            if row["moved_to"] is not None:
                self._learn(slot, row["moved_to"], row["version"])

    async def on_slot(self, slot: int, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` on the slot's shard, following moves; for the rare calls that use no lane.

        `work` raises SlotElsewhere if the shard does not serve the slot. Its statements must be
        repeatable. Raises ShardUnavailable, SlotMoving.
        """
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            shard = self._owner[slot]
            try:
                return await self._once(slot, work)
            except Unavailable as error:
                if asyncio.get_running_loop().time() > deadline:
                    if isinstance(error, ShardUnavailable):
                        self.tell(shard, is_well=False)
                    raise
            await asyncio.sleep(_PAUSE)

    async def _once(self, slot: int, work: Callable[[Connection], Awaitable[T]]) -> T:
        shard = self._owner[slot]
        try:
            try:
                async with acquired(self._pools[shard], within=_ACQUIRE) as connection:
                    result = await work(connection)
            except SlotElsewhere as elsewhere:
                if elsewhere.outcome == Outcome.SLOT_MOVED:
                    await self.relocate(slot)
                raise SlotMoving("the slot is being moved") from None
        except SlotMoving:
            raise
        except STORE_ERRORS as error:
            if not isinstance(error, Unavailable) and not is_transient(error):
                raise
            raise ShardUnavailable(
                "the shard cannot be reached", metadata={"shard": shard}
            ) from error
        self.tell(shard, is_well=True)
        return result

    async def _read_map(self, shard: str) -> None:
        try:
            rows = await fetch(self._pools[shard], _READ_MAP)
        except STORE_ERRORS as error:
            log.warning("cannot read the shard's map", shard=shard, error=type(error).__name__)
            self.tell(shard, is_well=False)
            return
        for row in rows:
            if row["state"] != _INCOMING:  # it is still served where it comes from
                self._learn(row["slot"], row["moved_to"] or shard, row["version"])

    def _learn(self, slot: int, owner: str, version: int) -> None:
        if owner not in self._pools:
            log.error("a slot went to a shard that the settings do not name", shard=owner)
        elif version > self._version[slot]:
            self._owner[slot] = owner
            self._version[slot] = version


class SlotElsewhere(Exception):
    """The shard does not serve the slot: SLOT_MOVING or SLOT_MOVED."""

    def __init__(self, outcome: int) -> None:
        super().__init__(outcome)
        self.outcome = outcome
