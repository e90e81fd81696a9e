"""Streams end; what the SDK does then."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import (
    FakeGateway,
    FakeMesh,
    FakeSession,
    rejection,
    running_gateway,
)
from tests.whimbrel_client.stored import looked_into
from tests.whimbrel_client.test_talking import received
from whimbrel.message.v1 import send_pb2
from whimbrel_client import (
    CallFailed,
    Client,
    ClientClosed,
    DeviceRevoked,
    NotConfirmed,
    ProfileInUse,
    ProfileMissing,
    SendRefused,
    SendState,
    StoreFailed,
)
from whimbrel_client.applying import Changes
from whimbrel_client.clock import days_ms
from whimbrel_client.identity import Tokens
from whimbrel_client.store import Store


async def until(condition: Callable[[], bool]) -> None:
    """Poll a state of the fake mesh, which tells nobody of its changes."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def session_of(mesh: FakeMesh, handle: str) -> FakeSession | None:
    return mesh.handles[handle].session


async def session_there(mesh: FakeMesh, handle: str) -> FakeSession:
    await until(lambda: session_of(mesh, handle) is not None)
    session = session_of(mesh, handle)
    assert session is not None
    return session


@pytest.fixture
async def other_gateway(mesh: FakeMesh) -> AsyncIterator[FakeGateway]:
    async with running_gateway(mesh) as gateway:
        yield gateway


async def test_leaving_the_block_half_closes_the_stream(people: People, mesh: FakeMesh) -> None:
    alice = await people.register("alice")

    async with Client.connect(alice) as client:
        await client.online()

    assert mesh.ends == ["HALF_CLOSED"]


async def test_what_was_stored_is_acked_before_the_stream_is_closed(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "hello"))

    async with Client.connect(bob) as receiver:
        await received(receiver, 1)

    assert mesh.acks == [(mesh.handles["bob"].user_id, 1)]


async def test_when_a_gateway_dies_everything_goes_on_at_another(
    people: People, mesh: FakeMesh, gateway: FakeGateway, other_gateway: FakeGateway
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    both = [gateway.address, other_gateway.address]
    lines = [f"{number}" for number in range(600)]

    async with (
        Client.connect(alice, gateways=both) as sender,
        Client.connect(bob, gateways=both) as receiver,
    ):
        sent = await sender.send_all("bob", lines)
        await sender.accepted(sent[100])
        await gateway.kill()
        messages = await received(receiver, 600)

    assert [message.text for message in messages] == lines


async def test_a_gateway_that_comes_back_is_found_again(
    people: People, mesh: FakeMesh, gateway: FakeGateway
) -> None:
    alice = await people.register("alice")
    await people.register("bob")

    async with Client.connect(alice) as client:
        await client.online()
        await gateway.kill()
        sent = await client.send(mesh.handles["bob"].user_id, "later")
        async with running_gateway(mesh, gateway.address):
            outcome = await client.accepted(sent)

    assert outcome.seq == 1


async def test_unanswered_sends_are_repeated_with_the_same_bytes_and_time(
    people: People, mesh: FakeMesh
) -> None:
    alice = await people.register("alice")
    await people.register("bob")
    mesh.swallow_answers = True

    async with Client.connect(alice) as client:
        await client.user_named("bob")
        sent = await client.send_all("bob", ["one", "two"])
        await until(lambda: len(mesh.sends) == 2)
        mesh.swallow_answers = False
        mesh.clock_ahead = 5.0
        (await session_there(mesh, "alice")).end("SERVER_DRAINING", 0.0)
        outcomes = [await client.accepted(message) for message in sent]

    tries = [send.SerializeToString() for _, send in mesh.sends]
    assert tries[2:] == tries[:2]
    assert [outcome.seq for outcome in outcomes] == [1, 2]


@pytest.mark.parametrize("reason", ["SERVER_DRAINING", "OVERLOADED", "SLOW_CONSUMER"])
async def test_a_stream_that_the_mesh_ends_is_opened_again(
    people: People, mesh: FakeMesh, reason: str
) -> None:
    alice = await people.register("alice")

    async with Client.connect(alice) as client:
        await client.online()
        (await session_there(mesh, "alice")).end(reason, 0.01)
        await until(lambda: len(mesh.hellos) == 2)


async def test_a_replaced_stream_comes_back_only_after_a_second(
    people: People, mesh: FakeMesh
) -> None:
    alice = await people.register("alice")

    async with Client.connect(alice) as client:
        await client.online()
        (await session_there(mesh, "alice")).end("STREAM_REPLACED", 0.0)
        await until(lambda: not client.is_online)
        began = asyncio.get_running_loop().time()
        await client.online()
        took = asyncio.get_running_loop().time() - began

    assert 0.9 < took < 6.0


async def test_a_revoked_device_stays_away_and_says_so(people: People, mesh: FakeMesh) -> None:
    alice, _ = await people.register("alice"), await people.register("bob")
    mesh.judge = lambda send: rejection(send, "OVERLOADED", 9.0)

    async with Client.connect(alice) as client:
        waiting = await client.send("bob", "never")
        (await session_there(mesh, "alice")).end("DEVICE_REVOKED")
        with pytest.raises(DeviceRevoked):
            await client.accepted(waiting)
        with pytest.raises(DeviceRevoked):
            await received(client, 1)
        with pytest.raises(DeviceRevoked):
            await client.send(os.urandom(16), "no more")


async def test_a_key_that_is_not_the_accounts_ends_the_client(people: People) -> None:
    alice = await people.register("alice")
    with looked_into(alice / "store.db") as connection:
        connection.execute("UPDATE device_key SET private = ?", (os.urandom(32),))

    async with Client.connect(alice) as client:
        with pytest.raises(DeviceRevoked):
            await client.online()


async def test_a_profile_that_has_lost_its_key_is_not_given_another(people: People) -> None:
    alice = await people.register("alice")
    with looked_into(alice / "store.db") as connection:
        connection.execute("DELETE FROM device_key")

    with pytest.raises(ProfileMissing, match="lost the key"):
        async with Client.connect(alice):
            pass

    with looked_into(alice / "store.db") as connection:
        assert connection.execute("SELECT * FROM device_key").fetchall() == []


async def test_an_expired_token_is_replaced(people: People, mesh: FakeMesh) -> None:
    alice = await people.register("alice")

    async with Client.connect(alice) as client:
        await client.online()
        (await session_there(mesh, "alice")).end("TOKEN_EXPIRED")
        await until(lambda: len(mesh.hellos) == 2)


async def test_the_token_is_renewed_before_it_ends_without_losing_anything(
    people: People, mesh: FakeMesh
) -> None:
    mesh.token_seconds = 0.6
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        for number in range(20):
            await sender.accepted(await sender.send("bob", f"{number}"))
            await asyncio.sleep(0.06)  # lets tokens end while messages flow
        messages = await received(receiver, 20)

    assert [message.text for message in messages] == [f"{number}" for number in range(20)]
    assert len(mesh.hellos) > 4
    assert set(mesh.ends) == {"HALF_CLOSED"}


async def test_a_device_with_a_wrong_date_still_connects(people: People, mesh: FakeMesh) -> None:
    mesh.clock_ahead = 400 * 86400.0
    alice = await people.register("alice")
    await people.register("bob")

    async with Client.connect(alice) as client:
        await client.accepted(await client.send("bob", "from the past"))

    ((_, send),) = mesh.sends
    assert abs(send.first_tried_at.ToSeconds() - mesh.now()) < 30


async def test_a_token_that_the_mesh_dislikes_is_fetched_anew(
    people: People, mesh: FakeMesh
) -> None:
    alice = await people.register("alice")
    mesh.refuse_tokens = True

    async with Client.connect(alice) as client:
        with pytest.raises(CallFailed, match="TOKEN_INVALID"):
            await client.user_named("bob")
        mesh.refuse_tokens = False
        await client.online()


async def test_of_four_sends_in_flight_the_first_is_refused_for_now_and_the_order_holds(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    refusals = 1

    def judge(send: send_pb2.Send) -> send_pb2.Rejected | None:
        nonlocal refusals
        if mesh.number_of(send) == 1 and refusals:
            refusals -= 1
            return rejection(send, "SHARD_UNAVAILABLE", 0.1)
        return None

    mesh.judge = judge
    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        sent = await sender.send_all("bob", ["1", "2", "3", "4"])
        outcomes = [await sender.accepted(message) for message in sent]
        messages = await received(receiver, 4)

    assert [message.text for message in messages] == ["1", "2", "3", "4"]
    assert [outcome.seq for outcome in outcomes] == [1, 2, 3, 4]
    assert len(mesh.sends) > 4


async def test_what_follows_a_send_that_is_refused_for_good_still_arrives(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    mesh.judge = lambda send: (
        rejection(send, "BODY_TOO_LARGE") if mesh.number_of(send) == 2 else None
    )

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        sent = await sender.send_all("bob", ["1", "2", "3", "4"])
        with pytest.raises(SendRefused, match="BODY_TOO_LARGE"):
            await sender.accepted(sent[1])
        messages = await received(receiver, 3)

    assert [message.text for message in messages] == ["1", "3", "4"]


async def test_a_tried_send_older_than_six_days_is_not_confirmed_and_not_repeated(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    mesh.swallow_answers = True
    async with Client.connect(alice) as client:
        await client.send_all("bob", ["old", "older"])
        await until(lambda: len(mesh.sends) == 2)
    mesh.swallow_answers = False
    mesh.clock_ahead = days_ms(6) / 1000 + 60

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        fresh = await sender.send("bob", "fresh")
        await sender.accepted(fresh)
        old, _, _ = await sender.outgoing()
        with pytest.raises(NotConfirmed):
            await sender.accepted(old)
        await received(receiver, 3)

    assert old.state is SendState.NOT_CONFIRMED
    assert len(mesh.sends) == 3
    assert mesh.sends[-1][1].after == b""


async def test_a_hole_in_the_deliveries_is_never_acked(people: People, mesh: FakeMesh) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender:
        for message in await sender.send_all("bob", ["1", "2", "3"]):
            await sender.accepted(message)
    queue = mesh.handles["bob"].queue
    hidden = queue.pop(1)

    async with Client.connect(bob) as receiver:
        await until(lambda: mesh.ends.count("HALF_CLOSED") == 2)
        queue.insert(1 if queue and queue[0].pos == 1 else 0, hidden)
        messages = await received(receiver, 3)

    assert [message.text for message in messages] == ["1", "2", "3"]


async def test_deliveries_that_come_again_are_shown_once(people: People, mesh: FakeMesh) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        for message in await sender.send_all("bob", ["1", "2"]):
            await sender.accepted(message)
        await received(receiver, 2)
    account = mesh.handles["bob"]
    for seq, pos in ((1, 3), (2, 4)):
        mesh.deliver(
            account,
            peer=mesh.handles["alice"].user_id,
            sender=mesh.handles["alice"].user_id,
            seq=seq,
            message_id=b"x" * 16 if pos == 4 else _first_id(mesh),
            body=send_pb2.DeviceBody(type=2, ciphertext=b"again"),
        )

    async with Client.connect(bob) as receiver:
        await until(lambda: account.acked_pos == 4)
        messages = await received(receiver, 2)
        alarms = await receiver.alarms()

    assert [message.text for message in messages] == ["1", "2"]
    assert [alarm.seq for alarm in alarms] == [2]


def _first_id(mesh: FakeMesh) -> bytes:
    (conversation,) = mesh.conversations.values()
    answers = [answer for _, answer in conversation.accepted.values()]
    return min(answers, key=lambda answer: answer.seq).message_id


async def test_receipts_resume_from_the_greatest_that_is_stored(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.send_all("bob", ["1", "2"])
        await received(receiver, 2)
        async for receipt in sender.receipts():
            if 2 in receipt.delivered:
                break

    async with Client.connect(alice) as sender:
        await sender.online()

    assert mesh.hellos[-1].after_receipts == receipt.version


async def test_a_reading_is_told_again_until_it_is_recorded(people: People, mesh: FakeMesh) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.send("bob", "1")
        (message,) = await received(receiver, 1)
    async with Client.connect(bob, gateways=["127.0.0.1:1"]) as offline:
        await offline.mark_read(message.conversation, message.seq)

    async with Client.connect(bob):
        await until(lambda: len(mesh.reads) == 1)
    async with Client.connect(bob) as receiver:
        await receiver.online()

    assert [read.up_to_seq for _, read in mesh.reads] == [1]


async def test_with_read_receipts_off_nobody_is_told(people: People, mesh: FakeMesh) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender:
        await sender.send("bob", "1")
        async with Client.connect(bob, read_receipts=False) as receiver:
            (message,) = await received(receiver, 1)
            await receiver.mark_read(message.conversation, message.seq)
            (conversation,) = await receiver.conversations()
        async with Client.connect(bob) as receiver:
            await receiver.online()

    assert conversation.unread == 0
    assert mesh.reads == []


async def test_an_error_of_the_application_leaves_the_block_as_it_is(people: People) -> None:
    alice = await people.register("alice")

    with pytest.raises(ZeroDivisionError):
        async with Client.connect(alice):
            _ = 1 / 0


async def test_after_the_block_the_client_says_that_it_is_closed(people: People) -> None:
    alice = await people.register("alice")

    async with Client.connect(alice) as client:
        message = await client.send(os.urandom(16), "queued")
    with pytest.raises(ClientClosed):
        await client.send(os.urandom(16), "too late")
    if message.outcome is None:
        with pytest.raises(ClientClosed):
            await client.accepted(message)


async def test_a_send_whose_caller_is_cancelled_still_goes_out(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.user_named("bob")
        sending = asyncio.create_task(sender.send(mesh.handles["bob"].user_id, "1"))
        await asyncio.sleep(0)
        sending.cancel()
        await sender.send("bob", "2")
        messages = await received(receiver, 2)

    assert [message.text for message in messages] == ["1", "2"]


async def test_two_clients_of_one_profile_are_refused(people: People) -> None:
    alice = await people.register("alice")

    async with Client.connect(alice):
        with pytest.raises(ProfileInUse):
            async with Client.connect(alice):
                pass


async def test_registering_again_finds_the_same_account(people: People, tmp_path: Path) -> None:
    first = await people.register("alice")
    before = (first / "account.json").read_text()

    await people.register("alice")

    assert (first / "account.json").read_text() == before


@pytest.fixture
def deaf_address() -> Iterator[str]:
    """Where connections are taken and never a word is said, as by a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_leaving_does_not_wait_for_a_gateway_that_never_answers(
    people: People, deaf_address: str
) -> None:
    alice = await people.register("alice")

    async with asyncio.timeout(4), Client.connect(alice, gateways=[deaf_address]) as client:
        await client.send(os.urandom(16), "queued")


async def test_leaving_does_not_wait_for_a_stream_that_never_opens(
    people: People, deaf_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await people.register("alice")
    opening = asyncio.Event()

    async def token(self: Tokens) -> str:
        opening.set()
        return "a token"

    monkeypatch.setattr(Tokens, "current", token)
    async with asyncio.timeout(4), Client.connect(alice, gateways=[deaf_address]):
        await opening.wait()
        await asyncio.sleep(0.05)  # let the call begin


async def test_a_store_that_fails_ends_the_client_and_nothing_is_acked(
    people: People, mesh: FakeMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "1"))

    async def full(self: Store, changes: Changes) -> None:
        raise StoreFailed("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "apply", full)
        async with Client.connect(bob) as receiver:
            with pytest.raises(StoreFailed):
                await received(receiver, 1)
    async with Client.connect(bob) as receiver:
        messages = await received(receiver, 1)

    assert mesh.acks == [(mesh.handles["bob"].user_id, 1)]
    assert [message.text for message in messages] == ["1"]
