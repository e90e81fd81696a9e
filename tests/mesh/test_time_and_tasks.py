import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from mesh.backoff import Backoff
from mesh.clock import SystemClock
from mesh.tasks import periodically, supervised
from mesh.testing import ManualClock, settle


async def test_the_system_clock_tells_utc_and_never_goes_back():
    clock = SystemClock()

    before = clock.monotonic()
    await clock.sleep(0)

    assert clock.monotonic() >= before
    assert clock.now().tzinfo is UTC


async def test_a_manual_clock_moves_only_when_told_and_wakes_in_order():
    clock, woken = ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), []

    async def sleep(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        for seconds in (3, 1, 2):
            tasks.create_task(sleep(seconds))
        await clock.until_sleeping(3)
        await clock.advance(0.5)
        assert woken == []
        await clock.advance(10)

    assert woken == [(1, 1), (2, 2), (3, 3)]
    assert clock.now() == datetime(2026, 1, 1, 0, 0, 10, 500_000, tzinfo=UTC)


async def test_a_manual_clock_wakes_those_who_sleep_again_within_one_advance():
    clock, woken = ManualClock(), []

    async def tick():
        while True:
            await clock.sleep(1)
            woken.append(clock.monotonic())

    ticking = asyncio.ensure_future(tick())
    await clock.until_sleeping()
    await clock.advance(3.5)
    ticking.cancel()

    assert woken == [1, 2, 3]


def test_backoff_draws_below_a_bound_that_doubles_up_to_its_limit():
    class Most(random.Random):
        def uniform(self, low, high):
            assert low == 0
            return high

    backoff = Backoff(timedelta(seconds=1), timedelta(seconds=5), chance=Most())

    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1


def test_backoff_spreads_a_crowd():
    waits = {Backoff(chance=random.Random(seed)).next() for seed in range(100)}

    assert len(waits) == 100
    assert max(waits) - min(waits) > 0.05


async def test_periodic_work_goes_on_after_an_error_and_the_error_is_logged():
    clock, done = ManualClock(), []

    async def work():
        done.append(clock.monotonic())
        if len(done) == 1:
            raise OSError("the first time")

    repeating = periodically(work, timedelta(seconds=10), name="sweep", jitter=0, clock=clock)
    task = asyncio.ensure_future(repeating)
    with capture_logs() as logged:
        await clock.until_sleeping()
        await clock.advance(25)
    task.cancel()

    assert done == [10, 20]
    assert [line["task"] for line in logged] == ["sweep"]


async def test_periodic_work_of_many_instances_does_not_fall_together():
    clock, done = ManualClock(), []

    async def work():
        done.append(clock.monotonic())

    async with asyncio.TaskGroup() as tasks:
        started = [
            tasks.create_task(
                periodically(
                    work,
                    timedelta(seconds=10),
                    name="sweep",
                    jitter=0.2,
                    clock=clock,
                    chance=random.Random(seed),
                )
            )
            for seed in range(20)
        ]
        await clock.until_sleeping(20)
        await clock.advance(12.1)
        for task in started:
            task.cancel()

    firsts = sorted(done)[:20]
    assert 8 <= firsts[0] < firsts[-1] <= 12.1
    assert len(set(firsts)) == 20


async def test_supervised_work_is_run_again_and_ends_only_by_cancellation():
    clock, runs = ManualClock(), []

    async def work():
        runs.append(None)
        if len(runs) < 3:
            raise ValueError("not yet")
        await asyncio.Event().wait()

    task = asyncio.ensure_future(supervised(work, name="relay", clock=clock))
    with capture_logs() as logged:
        await settle()
        while len(runs) < 3:
            await clock.advance(10)
    task.cancel()

    assert len(logged) == 2
    with pytest.raises(asyncio.CancelledError):
        await task
