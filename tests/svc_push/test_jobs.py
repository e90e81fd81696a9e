"""Which wake-ups are outstanding, and what survives a crash of an instance."""

from datetime import timedelta

import pytest

from mesh.redis import open_redis
from svc_push.jobs import Connected, Job, Jobs, JobsUnavailable, Wake
from tests.svc_push.conftest import QUIET, a_device, jobs_of

_SOON = timedelta(milliseconds=200)


async def taken(jobs) -> list[Job]:
    """All jobs that there are now."""
    found = await jobs.take(10, wait=_SOON)
    return found or await jobs.take(10, wait=_SOON)  # the first may only have made the group


def wake(device, *, epoch=1, acked=0, urgent=True) -> Wake:
    return Wake(device, epoch, acked, urgent)


async def test_one_wake_up_is_outstanding_until_the_device_has_been_there(jobs):
    device = a_device()
    await jobs.wake([wake(device), wake(device), wake(device, urgent=False)])
    [job] = await taken(jobs)
    await jobs.rung(job)
    await jobs.wake([wake(device)])
    none = await taken(jobs)
    await jobs.wake([wake(device, epoch=2)])
    after_a_session = await taken(jobs)
    await jobs.wake([wake(device, epoch=2, acked=7)])
    after_an_ack = await taken(jobs)

    assert (none, len(after_a_session), len(after_an_ack)) == ([], 1, 1)


async def test_what_was_said_before_a_session_wakes_nobody_after_it(jobs):
    device = a_device()
    await jobs.wake([wake(device, epoch=3)])
    [job] = await taken(jobs)

    await jobs.connected([Connected(device, 4)])
    await jobs.wake([wake(device, epoch=3)])

    assert await jobs.state(job) is None
    assert await taken(jobs) == []


async def test_an_urgent_one_takes_the_place_of_a_quiet_one(jobs):
    device = a_device()
    await jobs.wake([wake(device, urgent=False)])
    [quiet] = await taken(jobs)

    await jobs.wake([wake(device)])
    [urgent] = await taken(jobs)

    assert await jobs.state(quiet) is None
    state = await jobs.state(urgent)
    assert state is not None
    assert state.is_urgent


async def test_quiet_ones_are_at_least_so_far_apart_and_urgent_ones_are_not(redis):
    jobs, device = jobs_of(redis, quiet=timedelta(milliseconds=700)), a_device()
    await jobs.wake([wake(device, urgent=False)])
    [job] = await taken(jobs)
    await jobs.rung(job)

    await jobs.wake([wake(device, epoch=2, urgent=False)])
    early = await jobs.due(10), await taken(jobs)
    await jobs.wake([wake(device, epoch=3)])
    [urgent] = await taken(jobs)
    await jobs.rung(urgent)
    await jobs.wake([wake(device, epoch=4, urgent=False)])
    while not await jobs.due(10):
        pass
    [late] = await taken(jobs)

    assert early == (0, [])
    assert (await jobs.state(late)).is_urgent is False


async def test_a_job_of_a_dead_instance_is_claimed_and_of_a_live_one_is_not(redis):
    one, other, device = jobs_of(redis, "one"), jobs_of(redis, "other"), a_device()
    await one.wake([wake(device)])
    [job] = await taken(one)

    at_once = await other.claim(10, idle=timedelta(minutes=1))
    [claimed] = await other.claim(10, idle=timedelta())
    await other.rung(claimed)

    assert (at_once, claimed) == ([], job)
    assert await one.claim(10, idle=timedelta()) == []


async def test_a_try_that_failed_comes_again_with_its_number(jobs):
    device = a_device()
    await jobs.wake([wake(device)])
    [job] = await taken(jobs)

    await jobs.again(job, timedelta())
    while not await jobs.due(10):
        pass
    [again] = await taken(jobs)

    assert again.number == job.number
    assert again.entry != job.entry
    assert (await jobs.state(again)).tries == 1
    await jobs.wait(again, timedelta())
    while not await jobs.due(10):
        pass
    [in_turn] = await taken(jobs)
    assert (await jobs.state(in_turn)).tries == 1


async def test_a_flush_loses_jobs_and_what_is_told_again_rings(jobs, redis):
    device = a_device()
    await jobs.wake([wake(device)])
    await taken(jobs)
    await redis.flushdb()

    lost = await taken(jobs)
    await jobs.wake([wake(device)])

    assert lost == []
    assert len(await taken(jobs)) == 1


async def test_a_new_token_lets_the_next_word_ring(jobs):
    device = a_device()
    await jobs.wake([wake(device)])
    [job] = await taken(jobs)
    await jobs.end(job)  # there was no token

    await jobs.forget([device])
    await jobs.wake([wake(device)])

    assert len(await taken(jobs)) == 1


async def test_an_instance_leaves_the_group_only_with_nothing_undone(jobs, redis):
    await jobs.wake([wake(a_device())])
    [job] = await taken(jobs)

    await jobs.leave()
    with_one = await redis.xinfo_consumers("test:{push}:jobs", "workers")
    await jobs.rung(job)
    await jobs.leave()

    assert len(with_one) == 1
    assert await redis.xinfo_consumers("test:{push}:jobs", "workers") == []


@pytest.mark.parametrize("keep", [timedelta(milliseconds=300)])
async def test_a_wake_up_is_outstanding_only_as_long_as_a_provider_keeps_it(redis, keep):
    jobs, device = jobs_of(redis, keep=keep), a_device()
    await jobs.wake([wake(device)])
    [job] = await taken(jobs)
    await jobs.rung(job)
    while await redis.exists(f"test:{{push}}:device:{device}"):
        pass

    await jobs.wake([wake(device)])

    assert len(await taken(jobs)) == 1


async def test_without_redis_nothing_is_taken_for_durable_and_health_hears_of_it(own_valkey):
    told: list[bool] = []
    async with open_redis(own_valkey.address) as redis:
        jobs = Jobs(
            redis,
            prefix="test:",
            consumer="one",
            keep=timedelta(days=1),
            quiet=QUIET,
            on_health=told.append,
        )
        await jobs.wake([wake(a_device())])
        await own_valkey.kill()
        with pytest.raises(JobsUnavailable):
            await jobs.wake([wake(a_device())])
        await own_valkey.start()
        await jobs.wake([wake(a_device())])

    assert told == [True, False, True]
