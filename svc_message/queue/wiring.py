"""The parts of domain events, wired to each other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from mesh.tasks import periodically
from mesh.telemetry import Telemetry
from svc_message.groups.wiring import GroupParts
from svc_message.queue.jobs import JOBS_GROUP, FanOutJobs
from svc_message.queue.kafka import Broker, KafkaQueue
from svc_message.queue.keeping import Keeping
from svc_message.queue.model import JOBS_TOPIC
from svc_message.queue.outbox import EventLog
from svc_message.queue.publishing import KAFKA_GROUP, EventPublisher
from svc_message.queue.servicer import EventServicer
from svc_message.settings import Settings
from svc_message.shards.directory import Shards

_SWEEP = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class QueueParts:
    """What serves, and what works behind it; without Kafka there is nothing else."""

    servicer: EventServicer
    keeping: Keeping
    broker: Broker | None = None
    publisher: EventPublisher | None = None
    jobs: FanOutJobs | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                periodically(self.keeping.round, _SWEEP, name="events"), name="events"
            )
            for part in (self.broker, self.publisher, self.jobs):
                if part is not None:
                    tasks.create_task(part.run(), name=type(part).__name__.lower())


def build_queue(
    settings: Settings,
    shards: Shards,
    groups: GroupParts,
    telemetry: Telemetry,
    *,
    instance_id: str,
    on_health: Callable[[bool], None],
) -> QueueParts:
    """Wire them; `on_health` hears of a Kafka that goes and comes back."""
    events = EventLog(shards)
    servicer = EventServicer(events, readers=settings.events.readers, is_on=settings.events.is_on)
    keeping = Keeping(
        events,
        keep=settings.events.keep,
        keep_done=settings.events.keep_read,
        most=settings.events.most,
        telemetry=telemetry,
    )
    if not settings.kafka.bootstrap:
        return QueueParts(servicer, keeping)
    broker = Broker(settings.kafka, on_lost=lambda: events.rewind(KAFKA_GROUP), on_health=on_health)
    publisher = None
    if settings.events.is_on:
        publisher = EventPublisher(events, broker, instance_id=instance_id)
    if not settings.kafka.carries_jobs:
        return QueueParts(servicer, keeping, broker, publisher)
    told = KafkaQueue(settings.kafka, JOBS_TOPIC, JOBS_GROUP)
    jobs = FanOutJobs(shards, groups.stores, groups.fan_out, broker, told)
    groups.accepting.carry = jobs.carry
    return QueueParts(servicer, keeping, broker, publisher, jobs)
