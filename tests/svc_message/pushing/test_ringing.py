"""Who is to be woken: with a store, a registry and a push service that only remember."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from mesh.errors import Unavailable
from mesh.ids import random_id
from mesh.testing import ManualClock, settle
from svc_message.pushing.news import Connected, News, Unlinked, Wake
from svc_message.pushing.ringing import Ringing
from svc_message.pushing.store import Unread

_AFTER = timedelta(seconds=1)


@dataclass
class Queue:
    """A device's queue: of each row whether it is audible and urgent."""

    rows: list[tuple[bool, bool]] = field(default_factory=list)
    epoch: int = 1
    acked_pos: int = 0


class Stored:
    """Queues by device, as a WaitingStore has them."""

    def __init__(self) -> None:
        self.queues: dict = {}
        self.heard: list[int] = []  # how many rows each look has read
        self.is_away = False

    async def unread_after(self, last, limit):
        devices = sorted(device for device in self.queues if device > last)[:limit]
        return await self.unread(devices), devices[-1] if devices else None

    async def unread(self, devices):
        if self.is_away:
            raise Unavailable("away")
        queues = [(device, self.queues[device]) for device in devices]
        return [
            Unread(device, one.epoch, len(one.rows), one.acked_pos)
            for device, one in queues
            if len(one.rows) > one.acked_pos
        ]

    async def audible(self, spans):
        found = {}
        for span in spans:
            rows = self.queues[span.device].rows[span.after_pos : span.to_pos]
            self.heard.append(len(rows))
            audible = [row for row in rows if row[0]]
            found[span.device] = bool(audible), any(urgent for _, urgent in audible)
        return found


@dataclass
class Registry:
    """Who has a session; None: nobody knows."""

    there: set | None = field(default_factory=set)

    async def online(self, devices):
        return None if self.there is None else self.there & set(devices)


class OneShard:
    def shard_of(self, slot: int) -> str:
        return "shard-0"


class MyTurn:
    async def take(self, name, lasting) -> bool:
        return True


class Town:
    """The parts, and what the push service would be told."""

    def __init__(self) -> None:
        self.clock, self.stored, self.registry = ManualClock(), Stored(), Registry()
        self.news, self.is_wanted = News(), True
        self.ringing = Ringing(
            {"shard-0": self.stored},
            OneShard(),
            self.news,
            MyTurn(),
            is_wanted=lambda: self.is_wanted,
            after=_AFTER,
            sweep=timedelta(seconds=30),
            clock=self.clock,
        )

    def device(self, *rows: tuple[bool, bool]) -> tuple[bytes, int]:
        device = (random_id(), 1)
        self.stored.queues[device] = Queue(list(rows))
        return device

    async def absent(self, *devices) -> list:
        """The router misses them; what is told after a second."""
        for device in devices:
            self.ringing.absent(device)
        await settle()
        await self.clock.advance(1)
        return self.told()

    async def swept(self) -> list:
        await self.ringing.sweep(self.registry)
        return self.told()

    def told(self) -> list:
        told = list(self.news._untold)
        self.news._untold.clear()
        return told


@pytest.fixture
async def town():
    town = Town()
    running = asyncio.create_task(town.ringing.run(town.registry))
    yield town
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


SILENT, QUIET, URGENT = (False, True), (True, False), (True, True)


@pytest.mark.parametrize(
    ("rows", "rings"), [([SILENT], []), ([QUIET], [False]), ([SILENT, QUIET, URGENT], [True])]
)
async def test_what_is_audible_rings_as_it_is(town, rows, rings):
    device = town.device(*rows)

    told = await town.absent(device)

    assert told == [Wake(device, 1, 0, urgent) for urgent in rings]


async def test_it_is_told_once_and_again_only_for_something_urgent(town):
    device = town.device(QUIET)
    first = await town.absent(device)
    town.stored.queues[device].rows.append(QUIET)
    second = await town.absent(device)
    town.stored.queues[device].rows.append(URGENT)
    third = await town.absent(device)

    assert [len(first), len(second)] == [1, 0]
    assert [one.is_urgent for one in third] == [True]


async def test_once_the_device_has_been_there_it_is_told_anew(town):
    device = town.device(URGENT)
    await town.absent(device)
    queue = town.stored.queues[device]
    queue.rows.append(QUIET)
    queue.epoch, queue.acked_pos = 2, 1

    assert await town.absent(device) == [Wake(device, 2, 1, False)]


async def test_who_comes_within_the_second_or_acknowledges_is_left_alone(town):
    came, took = town.device(URGENT), town.device(URGENT)
    town.registry.there.add(came)
    town.stored.queues[took].acked_pos = 1

    assert await town.absent(came, took) == []


async def test_while_nobody_knows_who_is_there_nobody_is_woken(town):
    device = town.device(URGENT)
    town.registry.there = None

    assert await town.absent(device) == []
    assert await town.swept() == []


async def test_the_sweep_tells_again_of_all_who_are_away_whatever_was_told(town):
    away, there, silent = town.device(URGENT), town.device(URGENT), town.device(SILENT)
    town.registry.there.add(there)
    await town.absent(away, silent)

    assert [await town.swept(), await town.swept()] == [[Wake(away, 1, 0, True)]] * 2


async def test_what_was_looked_at_is_not_looked_at_again(town):
    device = town.device(*[SILENT] * 5)
    await town.absent(device)
    await town.swept()
    town.stored.queues[device].rows.append(SILENT)
    await town.absent(device)

    assert town.stored.heard == [5, 1]


async def test_a_long_queue_is_looked_at_by_parts_until_something_urgent_is_found(town):
    device = town.device(*[SILENT] * 250, URGENT, *[SILENT] * 1000)

    told = await town.absent(device)

    assert [one.is_urgent for one in told] == [True]
    assert town.stored.heard == [200, 200]


async def test_a_shard_that_is_away_is_swept_when_it_is_back(town):
    device = town.device(URGENT)
    town.stored.is_away = True
    while_away = await town.absent(device), await town.swept()
    town.stored.is_away = False

    assert while_away == ([], [])
    assert await town.swept() == [Wake(device, 1, 0, True)]


async def test_without_anybody_to_tell_only_ends_are_kept(town):
    device = town.device(URGENT)
    town.is_wanted = False
    town.ringing.connected(device, 3)
    town.ringing.unlinked(device)

    told = await town.absent(device)

    assert told == [Unlinked(device, town.clock.now() - timedelta(seconds=1))]


async def test_sessions_and_ends_are_told_in_their_order(town):
    device = town.device()
    town.ringing.unlinked(device)
    town.ringing.connected(device, 1)

    assert town.told() == [Unlinked(device, town.clock.now()), Connected(device, 1)]


async def test_news_that_nobody_takes_are_bounded_and_what_is_left_is_handed_out_again():
    news, device = News(), (random_id(), 1)
    for epoch in range(60_000):
        news.add(Connected(device, epoch))

    async with contextlib.aclosing(news.batches()) as batches:
        first = await anext(batches)
    async with contextlib.aclosing(news.batches()) as batches:  # as after a broken stream
        second = await asyncio.wait_for(anext(batches), 1)

    assert [one.epoch for one in (first[0], second[0])] == [10_000, 10_500]
