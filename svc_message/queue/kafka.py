"""The queue on Kafka: a broker that is watched and published to, and consumers of its topics."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import CommitFailedError, KafkaError

from mesh.backoff import Backoff
from svc_message.queue.model import EVENTS_TOPIC, JOBS_TOPIC, ClaimLost, Entry, QueueAway
from svc_message.queue.settings import KafkaSettings

log = structlog.get_logger(__name__)

KAFKA_ERRORS = (KafkaError, OSError, TimeoutError)

_LOOK_EVERY = 1.0
_ANSWER_SECONDS = 3.0
_STOP_SECONDS = 10.0
_JOIN_SECONDS = 30.0  # a group waits for its consumers to gather
_PAUSE = 0.2
_TOPIC_EXISTS = 36
# Nobody reads or writes it, or asks for it by its name: brokers make what they are asked for.
_MARK = "whimbrel.mark.v1"
# A consumer that died is missed after the first, and shows itself every second one.
_SESSION_MILLISECONDS = 10_000
_HEARTBEAT_MILLISECONDS = 1_000

# It complains ten times a second while a broker is away; what matters of it is said here.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

Rewind = Callable[[], Awaitable[None]]


class Broker:
    """A Kafka that entries are published to; it may be away, and may come back with nothing.

    A topic of no use marks a broker that has all it was given. Where it is missing, all else may be
    too, whatever topics a client's question has made meanwhile: `on_lost` is told, and may put that
    off by QueueAway; then the mark is made again.
    """

    def __init__(
        self, settings: KafkaSettings, *, on_lost: Rewind, on_health: Callable[[bool], None]
    ) -> None:
        self._settings = settings
        self._on_lost = on_lost
        self._on_health = on_health
        self._producer: AIOKafkaProducer | None = None
        self._broken = asyncio.Event()

    @property
    def is_well(self) -> bool:
        """Whether it could be reached last time."""
        return self._producer is not None and not self._broken.is_set()

    async def publish(self, topic: str, entries: Sequence[Entry], *, within: timedelta) -> None:
        """Give the broker entries; it, and its replicas, have them all. Raises QueueAway.

        After an error it may have some of them, and get them later: publish them all again.
        """
        producer = self._producer
        if producer is None or self._broken.is_set():
            raise QueueAway("Kafka cannot be reached")
        try:
            async with asyncio.timeout(within.total_seconds()):
                sent = [await producer.send(topic, one.value, key=one.key) for one in entries]
                await asyncio.gather(*sent)
        except KAFKA_ERRORS as error:
            # A producer in doubt is replaced: a broker that came back may not know it any more.
            self._broken.set()
            raise QueueAway("Kafka did not take it") from error

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._serve(backoff)
            except (*KAFKA_ERRORS, QueueAway) as error:
                log.warning("Kafka cannot be reached", error=type(error).__name__)
            self._on_health(False)
            await asyncio.sleep(backoff.next())

    async def _serve(self, backoff: Backoff) -> None:
        options = client_options(self._settings)
        admin = AIOKafkaAdminClient(**options)
        producer = AIOKafkaProducer(
            **options,
            acks="all",
            enable_idempotence=self._settings.is_idempotent,
            request_timeout_ms=int(_ANSWER_SECONDS * 1000),
        )
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await admin.start()
            await self._look(admin)
            async with asyncio.timeout(_ANSWER_SECONDS):
                await producer.start()
            self._broken.clear()
            self._producer = producer
            self._on_health(True)
            log.info("Kafka can be reached")
            backoff.reset()
            while not await _happens(self._broken, within=_LOOK_EVERY):
                await self._look(admin)
        finally:
            self._producer = None
            await _stopped(producer.stop())
            await _stopped(admin.close())

    async def _look(self, admin: AIOKafkaAdminClient) -> None:
        """See whether the topics are there; make what is missing."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            missing = {EVENTS_TOPIC, JOBS_TOPIC, _MARK}.difference(await admin.list_topics())
        if not missing:
            return
        if _MARK in missing:
            await self._on_lost()
        made = [
            NewTopic(name, self._settings.partitions, self._settings.replicas) for name in missing
        ]
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer = await admin.create_topics(made)
        for name, code, *_ in answer.topic_errors:
            if code not in {0, _TOPIC_EXISTS}:
                raise KafkaError(f"topic {name} was not made: error {code}")
        log.info("topics made", topics=sorted(missing))


class KafkaQueue:
    """A consumer of a topic, as Queue says."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self._settings = settings
        self._topic = topic
        self._group = group
        self._consumer: AIOKafkaConsumer | None = None
        # Where what was received last begins, and is not committed.
        self._begins: dict[TopicPartition, int] = {}

    async def receive(self, most: int, *, within: timedelta) -> Sequence[Entry]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within.total_seconds()
        while True:
            left = max(0.0, deadline - loop.time())
            try:
                consumer = await self._started()
                for partition in consumer.assignment() & self._begins.keys():
                    consumer.seek(partition, self._begins[partition])
                records = await consumer.getmany(timeout_ms=int(left * 1000), max_records=most)
            except KAFKA_ERRORS as error:
                log.warning("Kafka gives nothing", topic=self._topic, error=type(error).__name__)
                await self.close()
                await asyncio.sleep(min(left, _PAUSE))
                records = {}
            if records or loop.time() >= deadline:
                self._begins = {partition: some[0].offset for partition, some in records.items()}
                return [Entry(one.key, one.value) for some in records.values() for one in some]

    async def commit(self) -> None:
        if self._consumer is None or not self._begins:
            return
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._consumer.commit()
        except CommitFailedError as error:
            raise ClaimLost("another consumer of the group reads these entries now") from error
        except KAFKA_ERRORS as error:
            raise QueueAway("Kafka did not take it") from error
        self._begins = {}

    async def close(self) -> None:
        consumer, self._consumer, self._begins = self._consumer, None, {}
        if consumer is not None:
            await _stopped(consumer.stop())

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                self._topic,
                **client_options(self._settings),
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=_SESSION_MILLISECONDS,
                heartbeat_interval_ms=_HEARTBEAT_MILLISECONDS,
            )
            self._consumer = consumer
            async with asyncio.timeout(_JOIN_SECONDS):
                await consumer.start()
        return self._consumer


def client_options(settings: KafkaSettings) -> Mapping[str, Any]:
    """What every client of the cluster is told."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "security_protocol": settings.security,
        "metadata_max_age_ms": 5_000,
    }
    if settings.security.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
        options["ssl_context"] = context
    if settings.security.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.username
        options["sasl_plain_password"] = settings.password.get_secret_value()
    return options


async def _happens(event: asyncio.Event, *, within: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await event.wait()
    return event.is_set()


async def _stopped(stopping: Awaitable[Any]) -> None:
    """Await the end of a client, which says nothing that matters any more."""
    with contextlib.suppress(*KAFKA_ERRORS):
        async with asyncio.timeout(_STOP_SECONDS):
            await stopping
