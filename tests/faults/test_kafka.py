"""The broker dies and comes back with nothing, while people write to each other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from mesh.health import check
from svc_message.queue import kafka
from svc_message.queue.kafka import KafkaQueue
from svc_message.queue.model import EVENTS_TOPIC, ClaimLost, QueueAway
from svc_message.queue.settings import KafkaSettings
from tests.e2e.meshes import own_mesh
from tests.faults.breaking import kill
from tests.faults.crowd import a_crowd
from tests.faults.crowd import check as check_crowds
from tests.faults.history import Answered
from tests.faults.town import Town, a_town, eventually
from tests.tls import calling_as
from whimbrel.event.v1 import event_pb2
from whimbrel_cli.stack.mesh import Mesh


class Team:
    """A consumer group on Kafka, and what it has seen."""

    def __init__(self) -> None:
        self.accepted: dict[bytes, event_pb2.Accepted] = {}
        self.delivered: list[event_pb2.Delivered] = []
        self.linked: set[bytes] = set()

    async def follow(self, queue: KafkaQueue) -> None:
        while True:
            for entry in await queue.receive(500, within=timedelta(seconds=5)):
                self._see(event_pb2.DomainEvent.FromString(entry.value))
            with contextlib.suppress(ClaimLost, QueueAway):
                await queue.commit()

    def has_seen_all_of(self, town: Town) -> bool:
        """Whether all that the town's people did was told."""
        answered = {answer.message_id for answer in town.history.all(Answered)}
        return (
            answered <= self.accepted.keys()
            and {person.user_id for person in town.people} <= self.linked
            and all(self._is_delivered(self.accepted[message_id]) for message_id in answered)
        )

    def _see(self, event: event_pb2.DomainEvent) -> None:
        match event.WhichOneof("event"):
            case "accepted":
                self.accepted[event.accepted.message_id] = event.accepted
            case "delivered":
                self.delivered.append(event.delivered)
            case "device_linked":
                self.linked.add(event.device_linked.user_id)

    def _is_delivered(self, message: event_pb2.Accepted) -> bool:
        return any(
            told.conversation_id == message.conversation_id
            and told.author_id == message.sender_id
            and told.after_seq < message.seq <= told.up_to_seq
            for told in self.delivered
        )


@pytest.fixture(autouse=True)
def short_sessions(monkeypatch) -> None:
    """A consumer whose broker is gone notices soon."""
    monkeypatch.setattr(kafka, "_SESSION_MILLISECONDS", 1_000)
    monkeypatch.setattr(kafka, "_HEARTBEAT_MILLISECONDS", 200)


@contextlib.asynccontextmanager
async def a_team(mesh: Mesh) -> AsyncIterator[Team]:
    """A team that follows what the mesh tells by Kafka."""
    assert mesh.stack.kafka is not None
    team = Team()
    queue = KafkaQueue(KafkaSettings(bootstrap=mesh.stack.kafka.address), EVENTS_TOPIC, "team")
    following = asyncio.create_task(team.follow(queue))
    try:
        yield team
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await queue.close()


async def test_a_broker_that_comes_back_empty_loses_no_message_and_no_event() -> None:
    async with own_mesh(kafka=True) as mesh:
        async with a_town(mesh) as town:
            for round_ in range(2):
                await eventually(lambda: is_well(mesh))
                town.write(150)
                await town.has_accepted(300 * round_ + 60)
                await kill(mesh, "kafka")
                # People notice nothing of it, and operators do.
                town.write(150)
                await town.has_accepted(300 * (round_ + 1), within=10)
                await eventually(lambda: is_well(mesh, False))
                await mesh.start("kafka")
            await town.settled()

            # It reads what this broker has, which has seen nothing of the beginning.
            async with a_team(mesh) as team:
                await eventually(lambda: team.has_seen_all_of(town))

        await town.check()


async def test_a_group_gets_everything_while_the_broker_that_carries_its_jobs_dies() -> None:
    env = {"WHIMBREL_MESSAGE_KAFKA__CARRIES_JOBS": "true"}
    async with own_mesh(kafka=True, env=env) as mesh:
        await eventually(lambda: is_well(mesh))
        crowd = await a_crowd(mesh, members=20, strangers=0, seed=1)
        await crowd.write(20)
        writing = asyncio.create_task(crowd.write(200))
        await kill(mesh, "kafka")
        await eventually(lambda: is_well(mesh, False))
        await mesh.start("kafka")
        await writing

        await check_crowds(mesh, crowd)


async def is_well(mesh: Mesh, expected: bool = True) -> bool:
    """Whether every message instance says so of its Kafka."""
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(calling_as(mesh, "gateway", address=address))
            for address in mesh.message_addresses
        ]
        return all([await check(channel, "kafka") is expected for channel in channels])
