"""Everything goes wrong at once, by a seed; the two people notice nothing."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import (
    FakeGateway,
    FakeMesh,
    rejection,
    running_gateway,
)
from tests.whimbrel_client.test_talking import received
from whimbrel.message.v1 import send_pb2
from whimbrel_client import Client

COUNT = 500
BLOWS = 20


class Chaos:
    """Refuses, swallows, ends and kills, in an order that the seed decides."""

    def __init__(self, mesh: FakeMesh, gateways: list[FakeGateway], seed: int) -> None:
        self._mesh = mesh
        self._gateways = gateways
        self._chance = random.Random(seed)
        mesh.judge = self._judge

    def _judge(self, send: send_pb2.Send) -> send_pb2.Rejected | None:
        if self._chance.random() > 0.01:
            return None
        reason = self._chance.choice(["SHARD_UNAVAILABLE", "SLOT_MOVING", "TOO_MANY_OUTSTANDING"])
        return rejection(send, reason, self._chance.choice([0.0, 0.01, 0.05]))

    async def run(self) -> None:
        """So many blows, then peace."""
        for _ in range(BLOWS):
            await asyncio.sleep(self._chance.uniform(0.02, 0.15))
            await self._chance.choice([self._end, self._end, self._swallow, self._restart])()

    async def _end(self) -> None:
        account = self._chance.choice(list(self._mesh.accounts.values()))
        reason = self._chance.choice(["SERVER_DRAINING", "OVERLOADED", "SLOW_CONSUMER"])
        if account.session is not None:
            account.session.end(reason, self._chance.choice([None, 0.0, 0.03]))

    async def _swallow(self) -> None:
        self._mesh.swallow_answers = True
        await asyncio.sleep(0.02)
        self._mesh.swallow_answers = False
        for account in self._mesh.accounts.values():
            if account.session is not None:
                account.session.end("SERVER_DRAINING", 0.0)

    async def _restart(self) -> None:
        index = self._chance.randrange(len(self._gateways))
        gateway = self._gateways[index]
        await gateway.kill()
        self._gateways[index] = FakeGateway(self._mesh)
        await self._gateways[index].start(gateway.address)


@pytest.fixture
async def gateways(mesh: FakeMesh) -> AsyncIterator[list[FakeGateway]]:
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running_gateway(mesh)) for _ in range(2)]
        yield gateways
        for gateway in gateways:
            await gateway.kill()


@pytest.mark.parametrize("seed", range(3))
async def test_every_message_arrives_once_and_in_order(
    people: People, mesh: FakeMesh, gateways: list[FakeGateway], seed: int
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    addresses = [gateway.address for gateway in gateways]
    lines = [f"{number}" for number in range(COUNT)]

    async with (
        Client.connect(alice, gateways=addresses) as one,
        Client.connect(bob, gateways=addresses) as other,
    ):
        await one.online()
        await one.user_named("bob")
        await other.user_named("alice")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Chaos(mesh, gateways, seed).run())
            tasks.create_task(say(one, "bob", lines))
            tasks.create_task(say(other, "alice", lines))
            at_bob = tasks.create_task(received(other, COUNT))
            at_alice = tasks.create_task(received(one, COUNT))
        alarms = [*await one.alarms(), *await other.alarms()]

    assert [message.text for message in at_bob.result()] == lines
    assert [message.text for message in at_alice.result()] == lines
    assert alarms == []
    (conversation,) = mesh.conversations.values()
    assert conversation.last_seq == 2 * COUNT


async def say(client: Client, to: str, lines: list[str]) -> None:
    """In small handfuls, so that it takes a while."""
    for at in range(0, len(lines), 10):
        for message in await client.send_all(to, lines[at : at + 10]):
            await client.accepted(message)
