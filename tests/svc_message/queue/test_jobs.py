"""Fan-out by way of a broker that only says what is due."""

import asyncio

import pytest

from svc_message.queue.jobs import FanOutJobs
from svc_message.queue.model import JOBS_TOPIC, Entry, QueueAway


class FakeBroker:
    """A broker, and its one consumer: what is published to it comes out again."""

    def __init__(self) -> None:
        self.is_well = True
        self.takes = True
        self.jobs: list[Entry] = []
        self._news = asyncio.Event()

    async def publish(self, topic, entries, *, within) -> None:
        assert topic == JOBS_TOPIC
        if not self.takes:
            raise QueueAway("no")
        self.jobs += entries
        self._news.set()

    async def receive(self, most, *, within):
        await self._news.wait()
        self._news.clear()
        return self.jobs

    async def commit(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
async def broker(world):
    """The world's groups are fanned out by way of it."""
    broker = FakeBroker()
    groups = world.core.core.groups
    jobs = FanOutJobs(world.shards, groups.stores, groups.fan_out, broker, broker)
    groups.accepting.carry = jobs.carry
    running = asyncio.create_task(jobs.run())
    yield broker
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def received(world, people, group) -> list[list[int]]:
    """The seqs that each of the others has, at once: within the two seconds that no sweep ends."""
    async with asyncio.timeout(1.5):
        while await world.entries():
            await asyncio.sleep(0.01)
    return [[row["seq"] for row in await world.core.page(person)] for person in people]


async def sent(world, people):
    alice, *others = people[:4]
    group = (await world.create(alice, others)).group_id
    for _ in range(3):
        await world.send(alice, group)
    return others, group


async def test_who_is_told_of_a_message_fans_it_out(world, people, broker):
    others, group = await sent(world, people)

    assert await received(world, others, group) == [[1, 2, 3]] * 3
    assert [job.key for job in broker.jobs] == [group] * 3


@pytest.mark.parametrize("lack", ["is_well", "takes"])
async def test_without_the_broker_nothing_waits(world, people, broker, lack):
    setattr(broker, lack, False)

    others, group = await sent(world, people)

    assert await received(world, others, group) == [[1, 2, 3]] * 3
    assert broker.jobs == []


async def test_what_is_no_job_stops_nothing(world, people, broker):
    await broker.publish(JOBS_TOPIC, [Entry(b"key", b"\xff")], within=None)

    others, group = await sent(world, people)

    assert await received(world, others, group) == [[1, 2, 3]] * 3


async def test_what_the_broker_loses_is_found_overdue(world, people, broker):
    broker.receive = asyncio.Event().wait  # nobody is ever told

    others, group = await sent(world, people)
    await world.quiet()

    assert await received(world, others, group) == [[1, 2, 3]] * 3
