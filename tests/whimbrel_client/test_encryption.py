"""What the mesh sees and what it cannot do, and how sessions heal."""

import os
from pathlib import Path

import pytest

from tests.whimbrel_client.conftest import People
from tests.whimbrel_client.fake_gateway import Event, FakeKeys, FakeMesh, rejection
from tests.whimbrel_client.stored import looked_into
from tests.whimbrel_client.test_reconnecting import until
from tests.whimbrel_client.test_talking import received
from whimbrel.content.v1.content_pb2 import Content
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel.message.v1 import envelope_pb2, send_pb2
from whimbrel_client import Client, IdentityUnknown, SendState
from whimbrel_client.crypto import curve
from whimbrel_client.device_keys import new_keys, new_pools, published, upload_of

SECRET = "the words that nobody else may see"


def types_of(mesh: FakeMesh) -> list[int]:
    return [one.type for _, send in mesh.sends for one in send.per_device.bodies]


def device_of(profile: Path) -> FakeKeys:
    """Another device of the account, of which nothing but its keys exists."""
    private = _one(profile, "SELECT identity FROM own_identity")
    return FakeKeys(published(new_keys(curve.pair_of(private))))


def _one(profile: Path, query: str) -> bytes:
    with looked_into(profile / "store.db") as connection:
        (value,) = connection.execute(query).fetchone()
    return value


async def test_the_mesh_sees_no_words_and_ciphertexts_of_stepped_lengths(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", SECRET))
        (message,) = await received(receiver, 1)
        await receiver.accepted(await receiver.send("alice", SECRET))
        await received(sender, 1)
        await sender.accepted(await sender.send("bob", SECRET))

    assert message.text == SECRET
    assert message.is_encrypted
    assert not any(SECRET.encode() in send.SerializeToString() for _, send in mesh.sends)
    assert types_of(mesh) == [
        send_pb2.CIPHERTEXT_TYPE_PREKEY,
        send_pb2.CIPHERTEXT_TYPE_RATCHET,
        send_pb2.CIPHERTEXT_TYPE_RATCHET,
    ]


async def test_registering_gives_the_server_a_hundred_keys_of_each_kind(
    people: People, mesh: FakeMesh
) -> None:
    await people.register("alice")

    device = mesh.handles["alice"].devices[1]
    assert (len(device.one_time), len(device.one_time_kem)) == (100, 100)
    assert len({key.key_id for key in device.one_time}) == 100


async def test_a_device_that_is_told_that_its_keys_run_out_refills_them(
    people: People, mesh: FakeMesh
) -> None:
    alice = await people.register("alice")
    account = mesh.handles["alice"]

    async with Client.connect(alice) as client:
        await client.online()
        first = account.devices[1].one_time[0].key_id
        del account.devices[1].one_time[19:]
        low = gateway_pb2.LowPrekeys(one_time_prekeys=19)
        assert account.session is not None
        account.session.answers.append(Event(low_prekeys=low))
        account.session.wake.set()
        await until(lambda: len(account.devices[1].one_time) == 100)

    assert account.devices[1].one_time[0].key_id > first


async def test_a_device_whose_pool_is_empty_refills_it_as_it_connects(
    people: People, mesh: FakeMesh
) -> None:
    alice = await people.register("alice")
    device = mesh.handles["alice"].devices[1]
    device.one_time_kem.clear()

    async with Client.connect(alice):
        await until(lambda: len(device.one_time_kem) == 100)


async def test_a_one_time_key_is_gone_once_its_message_is_read(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.send("bob", "hello")
        await received(receiver, 1)

    assert _one(bob, "SELECT COUNT(*) FROM one_time_prekey") == 99
    assert _one(bob, "SELECT COUNT(*) FROM kem_prekey WHERE NOT is_last_resort") == 99


async def test_without_one_time_keys_the_last_resort_opens_a_session_and_its_use_is_remembered(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    device = mesh.handles["bob"].devices[1]
    device.one_time.clear()
    device.one_time_kem.clear()

    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "hello"))
    async with Client.connect(bob) as receiver:
        (message,) = await received(receiver, 1)

    assert message.text == "hello"
    assert _one(bob, "SELECT COUNT(*) FROM last_resort_use") == 1
    assert _one(bob, "SELECT COUNT(*) FROM kem_prekey WHERE is_last_resort") == 1


async def test_a_new_device_is_written_to_after_the_mesh_has_named_it(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    new_device = device_of(bob)

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", "one"))
        mesh.handles["bob"].devices[2] = new_device
        sent = await sender.send_all("bob", ["two", "three"])
        outcomes = [await sender.accepted(message) for message in sent]
        messages = await received(receiver, 3)

    assert [message.text for message in messages] == ["one", "two", "three"]
    assert [outcome.seq for outcome in outcomes] == [2, 3]
    last = mesh.sends[-1][1]
    assert {one.device_id for one in last.per_device.bodies} == {1, 2}
    assert last.client_message_id == sent[1].client_message_id


async def test_an_own_new_device_is_written_to_as_well(people: People, mesh: FakeMesh) -> None:
    alice, _ = await people.register("alice"), await people.register("bob")
    mesh.handles["alice"].devices[2] = device_of(alice)

    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "hello"))
        own = sender.user_id

    named = {(one.user_id, one.device_id) for one in mesh.sends[-1][1].per_device.bodies}
    assert named == {(own, 2), (mesh.handles["bob"].user_id, 1)}


async def test_a_device_that_is_gone_is_written_to_no_more(people: People, mesh: FakeMesh) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    mesh.handles["bob"].devices[2] = device_of(bob)

    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "one"))
        del mesh.handles["bob"].devices[2]
        await sender.accepted(await sender.send("bob", "two"))

    assert [one.device_id for one in mesh.sends[-1][1].per_device.bodies] == [1]


async def test_a_send_whose_twin_was_accepted_meanwhile_has_the_first_answer(
    people: People, mesh: FakeMesh
) -> None:
    alice, _ = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "zero"))
        mesh.swallow_answers = True
        sent = await sender.send("bob", "one")
        await until(lambda: len(mesh.sends) == 2)
        mesh.swallow_answers = False
        # The mesh says that nothing was accepted, though it was.
        account = mesh.handles["alice"]
        mismatch = send_pb2.DeviceMismatch(client_message_id=sent.client_message_id)
        mismatch.missing.add(user_id=mesh.handles["bob"].user_id, device_id=1)
        assert account.session is not None
        account.session.answers.append(Event(device_mismatch=mismatch))
        account.session.wake.set()
        outcome = await sender.accepted(sent)

    first, second = [send for _, send in mesh.sends[1:3]]
    assert first.client_message_id == second.client_message_id
    assert first.per_device != second.per_device
    assert (sent.state, outcome.seq) == (SendState.ACCEPTED, 2)


async def test_somebody_on_a_new_phone_is_reached_and_the_change_is_told(
    people: People, mesh: FakeMesh, tmp_path: Path
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.send("bob", "old phone")
        await received(receiver, 1)
        before = await sender.safety_number(receiver.user_id)
    keys, account = new_keys(), mesh.handles["bob"]
    pools = upload_of(new_pools(keys.device.identity, 2))
    account.devices[1] = FakeKeys(
        published(keys), list(pools.one_time_prekeys), list(pools.one_time_kem_prekeys)
    )

    async with Client.connect(alice) as sender:
        await sender.accepted(await sender.send("bob", "new phone"))
        change = await anext(sender.identity_changes())
        after = await sender.safety_number(account.user_id)

    assert change.user_id == account.user_id
    assert change.new_key == keys.device.identity.public
    assert before.digits() != after.digits()


async def test_both_sides_compute_the_same_safety_number(people: People) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as one, Client.connect(bob) as other:
        with pytest.raises(IdentityUnknown):
            await one.safety_number(other.user_id)
        await one.send("bob", "hello")
        await received(other, 1)
        left = await one.safety_number(other.user_id)
        right = await other.safety_number(one.user_id)

    assert left.digits() == right.digits()
    assert left.fits(right.scannable())


async def test_forged_keys_are_not_written_to(people: People, mesh: FakeMesh) -> None:
    alice, _ = await people.register("alice"), await people.register("bob")
    stranger = published(new_keys())
    stranger.identity_key = mesh.handles["bob"].devices[1].keys.identity_key
    mesh.handles["bob"].devices[2] = FakeKeys(stranger)

    async with Client.connect(alice) as sender:
        sent = await sender.send("bob", SECRET)
        await until(lambda: mesh.handles["bob"].fetches > 1)

        assert sent.state is SendState.WAITING
    assert mesh.sends == []


async def test_a_message_that_cannot_be_read_is_shown_as_such_and_comes_again(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", "one"))
        await received(receiver, 1)
        await receiver.send("alice", "answered, so the session is open on both sides")
        await received(sender, 1)
        mesh.tamper = lambda ciphertext: ciphertext[:-1] + bytes((ciphertext[-1] ^ 1,))
        mesh.judge = lambda send: (
            rejection(send, "OVERLOADED", 0.05) if send.user_id == sender.user_id else None
        )
        await sender.accepted(await sender.send("bob", "two"))
        mesh.tamper = lambda ciphertext: ciphertext
        await sender.accepted(await sender.send("bob", "three"))
        before = await received(receiver, 3)
        mesh.judge = lambda _: None
        await received(receiver, 1, after=before[-1].cursor)
        after = await received(receiver, 3)

    assert [message.text for message in before] == ["one", None, "three"]
    assert before[1].content is None
    assert [message.text for message in after] == ["one", "three", "two"]


async def test_a_device_that_lost_its_sessions_gets_what_it_could_not_read(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.send("bob", "hello")
        await received(receiver, 1)
        await receiver.send("alice", "hello")
        await received(sender, 1)
    with looked_into(bob / "store.db") as connection:
        connection.execute("DELETE FROM device")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.send_all("bob", map(str, range(20)))
        await until_texts(receiver, {"hello", *map(str, range(20))})


async def until_texts(client: Client, wanted: set[str]) -> None:
    """Return when all of these were shown."""
    async for message in client.messages():
        wanted.discard(message.text or "")
        if not wanted:
            return


async def test_a_ciphertext_that_is_delivered_again_as_another_message_is_not_read(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", "hello"))
        await received(receiver, 1)
        mesh.deliver(
            mesh.handles["bob"],
            peer=sender.user_id,
            sender=sender.user_id,
            seq=7,
            message_id=os.urandom(16),
            body=mesh.sends[0][1].per_device.bodies[0],
        )
        messages = await received(receiver, 2)
        unasked = len(mesh.sends)

    assert [message.text for message in messages] == ["hello", None]
    assert unasked == 1


async def test_a_groups_message_is_kept_and_acknowledged_and_nobody_is_asked_for_it_again(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    group, account = os.urandom(16), mesh.handles["bob"]
    account.head_pos += 1
    account.queue.append(
        envelope_pb2.Envelope(
            pos=account.head_pos,
            message_id=os.urandom(16),
            group_id=group,
            seq=1,
            sender_user_id=os.urandom(16),
            sender_device_id=1,
            type=send_pb2.CIPHERTEXT_TYPE_SENDER_KEY,
            ciphertext=b"sealed",
        )
    )

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", "hello"))
        messages = await received(receiver, 2)
        await until(lambda: account.acked_pos == 2)

    assert [(message.conversation, message.text) for message in messages] == [
        (group, None),
        (sender.user_id, "hello"),
    ]
    assert len(mesh.sends) == 1


async def test_words_in_the_clear_of_somebody_who_encrypts_are_not_shown(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")
    clear = Content()
    clear.text.body = "send me your money"

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        await sender.accepted(await sender.send("bob", "hello"))
        await received(receiver, 1)
        mesh.deliver(
            mesh.handles["bob"],
            peer=sender.user_id,
            sender=sender.user_id,
            seq=2,
            message_id=os.urandom(16),
            body=send_pb2.DeviceBody(type=1, ciphertext=clear.SerializeToString()),
        )
        messages = await received(receiver, 2)

    assert [message.text for message in messages] == ["hello", None]


async def test_a_message_that_the_mesh_gives_to_another_conversation_is_not_shown(
    people: People, mesh: FakeMesh
) -> None:
    alice, bob = await people.register("alice"), await people.register("bob")

    async with Client.connect(alice) as sender, Client.connect(bob) as receiver:
        (message,) = await sender.send_all("bob", ["hello"])
        await sender.accepted(message)
        (arrived,) = await received(receiver, 1)

    assert arrived.content is not None
    assert arrived.content.to == mesh.handles["bob"].user_id


async def test_a_message_to_somebody_without_keys_is_refused(
    people: People, mesh: FakeMesh
) -> None:
    alice, _ = await people.register("alice"), await people.register("bob")
    mesh.handles["bob"].devices.clear()

    async with Client.connect(alice) as sender:
        sent = await sender.send("bob", "hello")
        await until(lambda: sent.state is SendState.REFUSED)

    assert sent.outcome is not None
    assert sent.outcome.reason == "RECIPIENT_UNKNOWN"
    assert mesh.sends == []
