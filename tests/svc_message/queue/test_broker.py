"""The broker: how it is entered, and how one that has lost everything is known."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from pydantic import ValidationError

from mesh.ids import random_id
from svc_message.queue.kafka import Broker, client_options
from svc_message.queue.model import EVENTS_TOPIC, Entry, QueueAway
from svc_message.queue.settings import KafkaSettings
from tests.faults.town import eventually
from tests.stack_keeper import running
from whimbrel_cli.stack.kafka import Kafka
from whimbrel_cli.stack.servers import Server

ENTRY = Entry(random_id(), b"value")
WITHIN = timedelta(seconds=5)


class Watched:
    """A broker that is run, and what it tells."""

    def __init__(self, address: str) -> None:
        self.lost = 0
        self.can_rewind = True
        self.health: list[bool] = []
        settings = KafkaSettings(bootstrap=address, replicas=1, is_idempotent=False)
        self.broker = Broker(settings, on_lost=self._on_lost, on_health=self.health.append)

    async def _on_lost(self) -> None:
        self.lost += 1
        if not self.can_rewind:
            raise QueueAway("a shard is away")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(Server(Kafka(), log=tmp_path / "kafka.log")) as server:
        yield server


@pytest.fixture
async def watched(server: Server) -> AsyncIterator[Watched]:
    # Somebody's question makes a topic, which is no sign that the broker has what it was given.
    producer = AIOKafkaProducer(bootstrap_servers=server.address)
    await producer.start()
    await producer.send_and_wait(EVENTS_TOPIC, b"other")
    await producer.stop()
    watched = Watched(server.address)
    running = asyncio.create_task(watched.broker.run())
    yield watched
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_broker_that_comes_back_empty_is_known_and_used_once_all_is_rewound(
    server: Server, watched: Watched
) -> None:
    await eventually(lambda: watched.broker.is_well)
    assert watched.lost == 1
    await watched.broker.publish(EVENTS_TOPIC, [ENTRY], within=WITHIN)

    watched.can_rewind = False
    await server.kill()
    with pytest.raises(QueueAway):
        await watched.broker.publish(EVENTS_TOPIC, [ENTRY], within=WITHIN)
    assert not watched.broker.is_well
    await server.start()
    await eventually(lambda: watched.lost >= 3)
    assert not watched.broker.is_well
    watched.can_rewind = True
    await eventually(lambda: watched.broker.is_well)

    await watched.broker.publish(EVENTS_TOPIC, [ENTRY], within=WITHIN)
    assert watched.health[-1] is True
    assert False in watched.health


async def test_a_broker_that_has_all_is_not_taken_for_empty(watched: Watched) -> None:
    await eventually(lambda: watched.broker.is_well)
    again = Broker(
        watched.broker._settings, on_lost=watched._on_lost, on_health=watched.health.append
    )
    running = asyncio.create_task(again.run())

    await eventually(lambda: again.is_well)

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert watched.lost == 1


def test_clients_enter_by_tls_and_password_which_nobody_sees() -> None:
    settings = KafkaSettings(
        bootstrap="kafka:9093", security="SASL_SSL", username="mesh", password="hidden"
    )

    options = client_options(settings)

    assert options["sasl_plain_password"] == "hidden"
    assert options["ssl_context"].check_hostname
    assert "hidden" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    "lacking",
    [
        {"security": "SASL_SSL", "username": "mesh"},
        {"security": "SASL_PLAINTEXT", "password": "hidden"},
        {"security": "SSL", "certificate_file": __file__},
        {"security": "KERBEROS"},
    ],
)
def test_settings_by_which_no_broker_can_be_entered_are_refused(lacking) -> None:
    with pytest.raises(ValidationError) as refused:
        KafkaSettings(bootstrap="kafka:9093", **lacking)

    assert "hidden" not in str(refused.value)
