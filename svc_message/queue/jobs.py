"""Fan-out by way of Kafka: whoever is told that a group's message is due brings it to the members.

Kafka says only which message it is. The entry stands in the outbox until all members have it, so
that whatever a broker loses is found overdue; and while Kafka cannot be reached, or is slow, the
instance that accepted a message fans it out itself, as it does without Kafka.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from mesh.ids import slot_of
from mesh.postgres import STORE_ERRORS
from svc_message.groups.fanning import FanOut
from svc_message.groups.message_store import GroupMessageStore
from svc_message.groups.requests import GroupMessage
from svc_message.queue.kafka import Broker
from svc_message.queue.model import JOBS_TOPIC, ClaimLost, Entry, Queue, QueueAway
from svc_message.queue.wire import job_of, read_job
from svc_message.shards.directory import Shards

log = structlog.get_logger(__name__)

JOBS_GROUP = "whimbrel.fan-out"

_MOST = 256
_MOST_WAITING = 2_000
_WITHIN = timedelta(milliseconds=100)
_WAIT = timedelta(seconds=5)
_LEASE = timedelta(seconds=5)


class FanOutJobs:
    """Tells of messages that are due here, and carries those it is told of."""

    def __init__(
        self,
        shards: Shards,
        stores: Mapping[str, GroupMessageStore],
        fan_out: FanOut,
        broker: Broker,
        told: Queue,
    ) -> None:
        self._shards = shards
        self._stores = stores
        self._fan_out = fan_out
        self._broker = broker
        self._told = told
        self._waiting: list[GroupMessage] = []
        self._wake = asyncio.Event()

    def carry(self, message: GroupMessage) -> None:
        """Have a message brought to its group's members; its entry is committed. Never waits."""
        if not self._broker.is_well or len(self._waiting) >= _MOST_WAITING:
            self._fan_out.carry(message)
        else:
            self._waiting.append(message)
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell(), name="tell-jobs")
                tasks.create_task(self._take(), name="take-jobs")
        finally:
            await self._told.close()

    async def _tell(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            messages, self._waiting = self._waiting, []
            jobs = [job_of(message.group_id, message.seq) for message in messages]
            try:
                await self._broker.publish(JOBS_TOPIC, jobs, within=_WITHIN)
            except QueueAway:
                for message in messages:
                    self._fan_out.carry(message)

    async def _take(self) -> None:
        while True:
            entries = await self._told.receive(_MOST, within=_WAIT)
            for shard, due in self._by_shard(entries).items():
                try:
                    for message in await self._stores[shard].take_due(due, _LEASE):
                        self._fan_out.carry(message)
                except STORE_ERRORS as error:
                    log.warning("jobs stay for the sweep", shard=shard, error=type(error).__name__)
            try:
                await self._told.commit()
            except (ClaimLost, QueueAway) as error:
                log.warning("jobs come again", why=error.message)

    def _by_shard(self, entries: Sequence[Entry]) -> dict[str, list[tuple[bytes, int]]]:
        """The messages (group, seq) that are due, by the shard that is believed to have them."""
        due: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
        for entry in entries:
            try:
                group_id, seq = read_job(entry)
            except ValueError:
                log.warning("what is no job was passed over", topic=JOBS_TOPIC)
            else:
                due[self._shards.shard_of(slot_of(group_id))].append((group_id, seq))
        return due
