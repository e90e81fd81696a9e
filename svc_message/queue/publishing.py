"""Carries domain events from the shards to Kafka: for the shards, Kafka is one more group.

What the broker has is kept for a while all the same. A broker that comes back without its topics
gets everything again that is kept.
"""

import asyncio
from datetime import timedelta

import structlog

from mesh.backoff import Backoff
from svc_message.queue.kafka import Broker
from svc_message.queue.model import EVENTS_TOPIC, ClaimLost, QueueAway
from svc_message.queue.outbox import EventLog, PostgresQueue

log = structlog.get_logger(__name__)

# No team's group: those have the service's name before them.
KAFKA_GROUP = "kafka"

_MOST = 500
_WAIT = timedelta(seconds=1)
_WITHIN = timedelta(seconds=5)


class EventPublisher:
    """One instance's part in it: a shard's events are carried by one instance at a time."""

    def __init__(self, events: EventLog, broker: Broker, *, instance_id: str) -> None:
        self._broker = broker
        self._queue = PostgresQueue(events, KAFKA_GROUP, instance_id)

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._carry()
                    backoff.reset()
                except (QueueAway, ClaimLost) as error:
                    log.warning("events wait for Kafka", why=error.message)
                    await asyncio.sleep(backoff.next())
        finally:
            await self._queue.close()

    async def _carry(self) -> None:
        if not self._broker.is_well:
            raise QueueAway("Kafka cannot be reached")
        entries = await self._queue.receive(_MOST, within=_WAIT)
        if entries:
            await self._broker.publish(EVENTS_TOPIC, entries, within=_WITHIN)
            await self._queue.commit()
