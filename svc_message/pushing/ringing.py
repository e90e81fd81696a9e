"""Who is to be woken: devices without a session for which something waits that is not muted."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from mesh.clock import Clock
from mesh.ids import slot_of
from mesh.metrics import PUSH_FETCHED
from mesh.postgres import STORE_ERRORS
from mesh.telemetry import OFF, Telemetry
from svc_message.pushing.news import Connected, News, Unlinked, Wake
from svc_message.pushing.store import FIRST, Device, Span, Unread, WaitingStore

log = structlog.get_logger(__name__)

_MOST_ASKED = 20_000
_AT_ONCE = 500
_SWEPT_AT_ONCE = 1_000
_MOST_HEARD = 200_000
_HEARD_AT_ONCE = 100
_PART_ROWS = 200
_MOST_PARTS = 10


class Whereabouts(Protocol):
    """Which devices have a session, as the registry says."""

    async def online(self, devices: Sequence[Device]) -> Collection[Device] | None:
        """Those of the devices that have one; None when nobody knows."""


class Shares(Protocol):
    """Which shard has a slot."""

    def shard_of(self, slot: int) -> str: ...


class HasTurns(Protocol):
    """Whose turn something is."""

    async def take(self, name: str, lasting: timedelta) -> bool: ...


@dataclass(slots=True)
class _Heard:
    """What was found in a device's queue, up to `head_pos`, since it was there last."""

    been: tuple[int, int]  # epoch and acked_pos
    head_pos: int
    is_audible: bool = False
    is_urgent: bool = False
    told: bool | None = None  # the urgency of the wake-up that was told
    told_at: float = 0.0  # the first one, until the device is there


class Ringing:
    """Hears of absent devices from the router, and finds others by itself.

    `absent` and its like return at once; what they lead to is done by `run`.
    """

    def __init__(
        self,
        stores: Mapping[str, WaitingStore],
        shares: Shares,
        news: News,
        turns: HasTurns,
        *,
        is_wanted: Callable[[], bool],
        after: timedelta,
        sweep: timedelta,
        clock: Clock,
        telemetry: Telemetry = OFF,
    ) -> None:
        """Wire it.

        `is_wanted`: whether there is anybody to tell; `after`: how long a device may take to come
        by itself; `sweep`: how often all devices are looked at.
        """
        self._stores = stores
        self._shares = shares
        self._news = news
        self._turns = turns
        self._is_wanted = is_wanted
        self._after = after
        self._turn = sweep * 0.8
        self._clock = clock
        self._asked: dict[Device, None] = {}
        self._wake = asyncio.Event()
        self._heard: OrderedDict[Device, _Heard] = OrderedDict()
        self._fetched = telemetry.histogram(PUSH_FETCHED)

    def absent(self, device: Device) -> None:
        """Something was put into the device's queue, and it has no session."""
        if len(self._asked) < _MOST_ASKED and self._is_wanted():
            self._asked[device] = None
            self._wake.set()

    def connected(self, device: Device, epoch: int) -> None:
        """The device has opened a session."""
        heard = self._heard.get(device)
        if heard is not None and heard.told_at:
            self._fetched.record(self._clock.monotonic() - heard.told_at)
            heard.told_at = 0.0
        if self._is_wanted():
            self._news.add(Connected(device, epoch))

    def unlinked(self, device: Device) -> None:
        """The device is no more, or another has its number."""
        self._news.add(Unlinked(device, self._clock.now()))

    async def run(self, whereabouts: Whereabouts) -> None:
        """Look after those that were told of, until cancelled."""
        while True:
            await self._wake.wait()
            await self._clock.sleep(self._after.total_seconds())
            self._wake.clear()
            asked, self._asked = list(self._asked), {}
            for shard, devices in self._by_shard(asked).items():
                for start in range(0, len(devices), _AT_ONCE):
                    await self._look(shard, devices[start : start + _AT_ONCE], whereabouts)

    async def sweep(self, whereabouts: Whereabouts) -> None:
        """Tell of every device that has something waiting and no session, whatever was told."""
        for shard in self._stores:
            if self._is_wanted() and await self._turns.take(f"push-sweep:{shard}", self._turn):
                try:
                    await self._sweep_shard(shard, whereabouts)
                except STORE_ERRORS as error:
                    log.warning("sweep given up", shard=shard, error=type(error).__name__)

    async def _sweep_shard(self, shard: str, whereabouts: Whereabouts) -> None:
        last: Device | None = FIRST
        while last is not None:
            unread, last = await self._stores[shard].unread_after(last, _SWEPT_AT_ONCE)
            for start in range(0, len(unread), _AT_ONCE):
                some = unread[start : start + _AT_ONCE]
                online = await whereabouts.online([one.device for one in some])
                if online is None:
                    return
                absent = [one for one in some if one.device not in online]
                await self._ring(shard, absent, again=True)

    async def _look(self, shard: str, devices: Sequence[Device], whereabouts: Whereabouts) -> None:
        online = await whereabouts.online(devices)
        absent = [] if online is None else [one for one in devices if one not in online]
        if not absent:
            return
        try:
            await self._ring(shard, await self._stores[shard].unread(absent), again=False)
        except STORE_ERRORS as error:
            # The sweep finds them once the shard is back.
            log.warning("cannot see what waits", shard=shard, error=type(error).__name__)

    async def _ring(self, shard: str, unread: Sequence[Unread], *, again: bool) -> None:
        await self._listen(shard, unread)
        for one in unread:
            heard = self._heard.get(one.device)
            if heard is None or not heard.is_audible:
                continue
            if again or heard.told is None or heard.is_urgent > heard.told:
                heard.told = heard.is_urgent
                heard.told_at = heard.told_at or self._clock.monotonic()
                self._news.add(Wake(one.device, one.epoch, one.acked_pos, heard.is_urgent))

    async def _listen(self, shard: str, unread: Sequence[Unread]) -> None:
        """Look at what is new in the queues since they were looked at last.

        A long queue is looked at a part at a time; the rest of a very long one has to wait.
        """
        for one in unread:
            heard, been = self._heard.get(one.device), (one.epoch, one.acked_pos)
            if heard is None or heard.been != been:
                self._heard[one.device] = _Heard(been, one.acked_pos)
            self._heard.move_to_end(one.device)
        while len(self._heard) > _MOST_HEARD:
            self._heard.popitem(last=False)
        for _ in range(_MOST_PARTS):
            spans = [span for one in unread if (span := self._unheard(one)) is not None]
            if not spans:
                return
            for start in range(0, len(spans), _HEARD_AT_ONCE):
                await self._hear(shard, spans[start : start + _HEARD_AT_ONCE])

    def _unheard(self, unread: Unread) -> Span | None:
        """The next part of the queue to look at; None: nothing that it can hold matters."""
        heard = self._heard.get(unread.device)
        if heard is None or heard.is_urgent or heard.head_pos >= unread.head_pos:
            return None
        to_pos = min(unread.head_pos, heard.head_pos + _PART_ROWS)
        return Span(unread.device, heard.head_pos, to_pos)

    async def _hear(self, shard: str, spans: Sequence[Span]) -> None:
        audible = await self._stores[shard].audible(spans)
        for span in spans:
            heard = self._heard.get(span.device)
            # The sweep and the other way here may look at once.
            if heard is not None and heard.head_pos == span.after_pos:
                is_audible, is_urgent = audible[span.device]
                heard.head_pos = span.to_pos
                heard.is_audible = heard.is_audible or is_audible
                heard.is_urgent = heard.is_urgent or is_urgent

    def _by_shard(self, devices: Sequence[Device]) -> dict[str, list[Device]]:
        shards: dict[str, list[Device]] = {}
        for device in devices:
            shards.setdefault(self._shares.shard_of(slot_of(device[0])), []).append(device)
        return shards
