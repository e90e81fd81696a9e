"""Two people talk: what the SDK does when nothing goes wrong."""

import asyncio
import itertools

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import FakeMesh
from whimbrel_client import Client, Message, Tick


async def received(client: Client, count: int, *, after: int = 0) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(50):
        async for message in client.messages(after=after):
            messages.append(message)
            if len(messages) == count:
                break
    return messages


async def test_a_message_arrives_and_its_receipt_comes_back(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        sent = await sender.send("bob", "hello")
        outcome = await sender.accepted(sent)
        (message,) = await received(receiver, 1)
        async for receipt in sender.receipts():
            if receipt.tick(outcome.seq) is Tick.DELIVERED:
                break

    assert message.text == "hello"
    assert (message.sender, message.seq) == (sender.user_id, 1)
    assert outcome.message_id == message.message_id


async def test_two_thousand_messages_both_ways_arrive_in_order(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    lines = [f"line {number}" for number in range(2000)]

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        await one.send_all("bob", lines)
        await other.send_all("alice", lines)
        at_bob, at_alice = await asyncio.gather(received(other, 2000), received(one, 2000))

    assert [message.text for message in at_bob] == lines
    assert [message.text for message in at_alice] == lines
    assert all(one.seq < other.seq for one, other in itertools.pairwise(at_bob))


async def test_reading_turns_the_tick_blue(people: People, mesh: FakeMesh) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        sent = await sender.send("bob", "hello")
        (message,) = await received(receiver, 1)
        await receiver.mark_read(message.conversation, message.seq)
        async for receipt in sender.receipts():
            if receipt.read_up_to:
                break
        tick = await sender.tick(sent)

    assert tick is Tick.READ
