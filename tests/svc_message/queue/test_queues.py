"""What Queue promises, held by the shards themselves and by Kafka."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from mesh.ids import random_id
from svc_message.queue import kafka
from svc_message.queue.kafka import KafkaQueue, client_options
from svc_message.queue.model import Queue
from svc_message.queue.outbox import EventLog, PostgresQueue
from svc_message.queue.settings import KafkaSettings
from whimbrel.event.v1 import event_pb2
from whimbrel_cli.stack.kafka import Kafka
from whimbrel_cli.stack.servers import Server

A, B = random_id(), random_id()
SOON = timedelta(seconds=10)
AT_ONCE = timedelta(milliseconds=300)
WRITE = "INSERT INTO domain_event (slot, kind, key_id, number) VALUES (7, 4, $1, $2)"


@dataclass
class Bench:
    """One kind of queue: how entries get on it, and how consumers are made."""

    put: Callable[[bytes, int], Awaitable[None]]
    consumer: Callable[..., Queue]

    async def put_all(self, *entries: tuple[bytes, int]) -> None:
        for key, number in entries:
            await self.put(key, number)


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory) -> Iterator[str]:
    """A broker for all tests of the worker, each of which makes a topic of its own."""
    server = Server(Kafka(), log=tmp_path_factory.mktemp("kafka") / "kafka.log")
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield server.address
        runner.run(server.stop())


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=["postgres", "kafka"])
def bench(request) -> Bench:
    """Each kind in turn."""
    made: Bench = request.getfixturevalue(f"{request.param}_bench")
    return made


@pytest.fixture
def postgres_bench(closing: AsyncExitStack, events: EventLog) -> Bench:
    async def put(key: bytes, number: int) -> None:
        await events.stores["shard-0"]._pool.execute(WRITE, key, number)

    return Bench(put, _closed_by(closing, lambda group: PostgresQueue(events, group, _new_name())))


@pytest.fixture
async def kafka_bench(closing: AsyncExitStack, kafka_address: str, monkeypatch) -> Bench:
    # This broker is told of the end of no group's first consumer, and has to miss it.
    monkeypatch.setattr(kafka, "_SESSION_MILLISECONDS", 1_000)
    monkeypatch.setattr(kafka, "_HEARTBEAT_MILLISECONDS", 200)
    settings = KafkaSettings(bootstrap=kafka_address)
    topic = _new_name()
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    closing.push_async_callback(producer.stop)

    async def put(key: bytes, number: int) -> None:
        event = event_pb2.DomainEvent(
            group_changed=event_pb2.GroupChanged(group_id=key, revision=number)
        )
        await producer.send_and_wait(topic, event.SerializeToString(), key=key)

    return Bench(put, _closed_by(closing, lambda group: KafkaQueue(settings, topic, group)))


def _closed_by(stack: AsyncExitStack, make: Callable[[str], Queue]) -> Callable[..., Queue]:
    def consumer(group: str = "group") -> Queue:
        queue = make(group)
        stack.push_async_callback(queue.close)
        return queue

    return consumer


def _new_name() -> str:
    return uuid.uuid4().hex


async def received(queue: Queue, count: int) -> list[tuple[bytes, int]]:
    """What the consumer has in hand once it is so much; nothing of it is committed."""
    async with asyncio.timeout(30):
        while True:
            entries = [
                (entry.key, event_pb2.DomainEvent.FromString(entry.value).group_changed.revision)
                for entry in await queue.receive(100, within=SOON)
            ]
            if len(entries) >= count:
                return entries


# A broker lets a group's consumers gather for some seconds, so a test asks for few of them.
async def test_a_consumer_gets_all_in_the_order_of_each_key_until_it_commits(bench: Bench) -> None:
    queue = bench.consumer()
    assert list(await queue.receive(100, within=AT_ONCE)) == []
    await queue.commit()
    put = [(A, 1), (B, 1), (A, 2), (B, 2), (A, 3)]
    await bench.put_all(*put)

    first = await received(queue, 5)
    again = await received(queue, 5)
    await queue.commit()
    await bench.put_all((A, 4))

    assert sorted(first) == sorted(put)
    for key in (A, B):
        assert [e for e in first if e[0] == key] == [e for e in put if e[0] == key]
    assert again == first
    assert await received(queue, 1) == [(A, 4)]


async def test_the_next_consumer_goes_on_behind_what_was_committed(bench: Bench) -> None:
    await bench.put_all((A, 1))
    first = bench.consumer()
    await received(first, 1)
    await first.commit()
    await bench.put_all((A, 2))
    await received(first, 1)
    await first.close()

    assert await received(bench.consumer(), 1) == [(A, 2)]


async def test_each_group_gets_everything(bench: Bench) -> None:
    await bench.put_all((A, 1))

    async def taken(group: str) -> list[tuple[bytes, int]]:
        queue = bench.consumer(group)
        entries = await received(queue, 1)
        await queue.commit()
        return entries

    assert await asyncio.gather(taken("one"), taken("another")) == [[(A, 1)], [(A, 1)]]
