"""Who gets a sender key, when it is made anew, and what becomes of messages that lack it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.whimbrel_client.groups.town import GROUP, Phone, Town
from whimbrel.message.v1 import send_pb2
from whimbrel_client.applying import Changes
from whimbrel_client.crypto import sender_keys
from whimbrel_client.crypto.stored_sender_keys import load_reader
from whimbrel_client.groups import reading
from whimbrel_client.kept import queued_of
from whimbrel_client.opening import Delivered
from whimbrel_client.payload import text
from whimbrel_client.sessions import DeviceId

ANN, BEN, CID, DAN = (DeviceId(name * 16, 1) for name in (b"a", b"b", b"c", b"d"))
ANN_2, BEN_2 = (DeviceId(one.user_id, 2) for one in (ANN, BEN))


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    """A group of ann, ben and cid, which all devices know."""
    town = Town(tmp_path)
    for name in (ANN, BEN, CID):
        await town.link(name)
    town.add(ANN.user_id, BEN.user_id, CID.user_id)
    await town.tell(*town.phones.values())
    yield town
    for phone in town.phones.values():
        await phone.store.close()


def chain_of(send: send_pb2.Send) -> int:
    return sender_keys.open_message(send.shared.ciphertext).chain_id


async def test_a_key_is_handed_to_each_once_and_a_message_is_encrypted_once(town: Town) -> None:
    ann, ben, cid = town.phones.values()
    await ann.says("one")
    await ann.says("two")
    await town.settle()
    await ann.says("three")
    await town.settle()

    for phone in (ben, cid):
        assert await phone.texts() == ["one", "two", "three"]
    assert sorted(name.user_id for name in town.direct) == [BEN.user_id, CID.user_id]
    assert len({chain_of(send) for send in town.to_group}) == 1
    assert town.direct_before == [2, 2, 2]  # no message goes before the key has


async def test_a_group_that_is_read_again_as_it_stands_still_hands_its_key_out_once(
    town: Town,
) -> None:
    ann, ben, cid = town.phones.values()
    await ann.store.groups.hand_out(GROUP)
    await town.tell(ann)  # what is read of it twice at once comes twice
    is_being_handed = await ann.store.groups.is_being_handed(GROUP)
    await town.settle()
    await ann.says("one")
    await town.settle()

    assert is_being_handed
    assert not await ann.store.groups.is_being_handed(GROUP)
    assert sorted(name.user_id for name in town.direct) == [BEN.user_id, CID.user_id]
    for phone in (ben, cid):
        assert await phone.texts() == ["one"]


async def test_who_is_removed_has_no_key_of_what_is_written_after(town: Town) -> None:
    ann, ben, cid = town.phones.values()
    await ann.says("one")
    await town.settle()
    town.remove(ANN.user_id, CID.user_id)
    await ann.says("two")
    await town.settle()

    before, after = town.to_group
    assert chain_of(before) != chain_of(after)
    # Even if the mesh gives it to him.
    await forced(town, cid, after)
    assert await ben.texts() == ["one", "two"]
    assert await cid.texts() == ["one", None]


async def test_a_device_that_is_linked_gets_the_key_and_one_that_leaves_loses_it(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[None] = []
    admit = reading.admit
    monkeypatch.setattr(
        reading, "admit", lambda c, sender, key: taken.append(admit(c, sender, key))
    )
    ann, ben, _ = town.phones.values()
    await ann.says("one")
    await town.settle()
    ben_2 = await town.link(BEN_2)
    await town.tell(ben_2)
    await ann.says("two")
    await town.settle()
    handed = len(taken)
    await town.unlink(BEN_2)
    await ann.says("three")
    await town.settle()

    assert await ben.texts() == ["one", "two", "three"]
    assert await ben_2.texts() == ["two"]
    one, two, three = map(chain_of, town.to_group)
    assert one == two != three
    assert handed == 3  # each of the three once
    await forced(town, ben_2, town.to_group[2])
    assert await ben_2.texts() == ["two", None]
    await ben_2.store.close()


async def test_whoever_gets_a_key_by_an_earlier_hand_out_is_remembered_and_loses_it(
    town: Town,
) -> None:
    ann, ben, _ = town.phones.values()
    await ann.store.groups.hand_out(GROUP)
    ben_2 = await town.link(BEN_2)
    await town.tell(ann, ben_2)  # the key is to be handed out anew, and the earlier is on its way
    await town.settle()
    await town.unlink(BEN_2)
    await ann.store.queue([queued_of(BEN.user_id, text("hello"))])
    await town.settle()  # she knows his devices then, whatever she writes to the group
    await ann.says("one")
    await town.settle()

    assert await ben.texts() == ["one"]
    await forced(town, ben_2, town.to_group[0])
    assert await ben_2.texts() == [None]
    await ben_2.store.close()


async def test_a_key_that_was_given_up_is_handed_to_nobody(town: Town) -> None:
    ann, ben, _ = town.phones.values()
    await ann.says("one")
    await town.settle()
    ben_2 = await town.link(BEN_2)
    await town.tell(ann, ben_2)
    await ann.store.groups.hand_out(GROUP)  # not sent yet, when nobody may have that key any more
    town.remove(ANN.user_id, CID.user_id)
    await town.tell(ann)
    await town.settle()
    await ann.says("two")
    await town.settle()

    assert await ben.texts() == ["one", "two"]
    assert await ben_2.texts() == ["two"]
    one, two = map(chain_of, town.to_group)
    assert one != two
    assert one not in await chains_known_to(ben_2)
    await ben_2.store.close()


async def test_an_own_device_that_leaves_loses_the_key_too(town: Town) -> None:
    ann, ben, _ = town.phones.values()
    ann_2 = await town.link(ANN_2)
    await town.tell(ann, ann_2)
    await ann_2.says("one")  # so that the first knows it
    await town.settle()
    await ann.says("two")
    await town.settle()
    await town.unlink(ANN_2)
    await ann.says("three")
    await town.settle()

    assert await ben.texts() == ["one", "two", "three"]
    assert await ann_2.texts() == ["two"]
    await forced(town, ann_2, town.to_group[2])
    assert await ann_2.texts() == ["two", None]
    await ann_2.store.close()


async def test_what_comes_before_its_key_opens_when_the_key_comes(town: Town) -> None:
    ann, ben, cid = town.phones.values()
    town.held_back.add(BEN.user_id)
    await ann.says("one")
    await ann.says("two")
    await cid.says("three")
    await town.settle()
    assert await ben.texts() == [None, None, None]

    town.held_back.clear()
    await town.settle()
    assert await ben.texts() == ["one", "two", "three"]


async def test_nobody_waits_for_a_member_to_whom_nothing_can_be_handed_now(town: Town) -> None:
    ann, ben, cid = town.phones.values()
    town.is_down.add(CID.user_id)
    await ann.says("one")
    await town.settle()
    await town.settle()
    assert await ben.texts() == ["one"]
    assert await cid.texts() == [None]

    town.is_down.clear()
    await town.settle()
    assert await cid.texts() == ["one"]


async def test_a_key_that_was_lost_is_asked_for_once_and_answered_to_members_only(
    town: Town,
) -> None:
    ann, ben, _ = town.phones.values()
    await ann.says("one")
    await town.settle()
    await ben.store._database.run(lambda c: c.execute("DELETE FROM key_reader"))
    await ann.says("two")
    await town.settle()
    assert await ben.texts() == ["one", None]

    asked, _ = await ben.store.groups.ask_for_keys()
    again, _ = await ben.store.groups.ask_for_keys()
    await town.settle()
    assert (len(asked), again) == (1, [])
    assert await ben.texts() == ["one", "two"]

    # Somebody who came later asks for what was written before.
    dan = await town.link(DAN)
    town.add(ANN.user_id, DAN.user_id)
    await town.tell(*town.phones.values())
    await forced(town, dan, town.to_group[1])
    await dan.store.groups.ask_for_keys()
    await ann.says("three")
    await town.settle()
    assert await dan.texts() == [None, "three"]


@pytest.mark.parametrize("kind", ["direct", "reverse", "forged", "cut", "other group", "stranger"])
async def test_what_is_no_message_of_the_group_is_kept_unread(town: Town, kind: str) -> None:
    ann, ben, _ = town.phones.values()
    await ann.says("one")
    await town.settle()
    body, sender = town.to_group[0].shared.ciphertext, ANN
    of_group, type_ = True, send_pb2.CIPHERTEXT_TYPE_SENDER_KEY
    group_id = GROUP
    match kind:
        case "direct":
            of_group = False
        case "reverse":
            type_ = send_pb2.CIPHERTEXT_TYPE_RATCHET
        case "forged":
            body = body[:-1] + bytes([body[-1] ^ 1])
        case "cut":
            body = body[:20]
        case "other group":
            group_id = b"h" * 16
        case "stranger":
            sender = DAN
    place = (group_id, 9, b"m" * 16, *sender, 1000)
    delivered = Delivered(*place, type_, body, of_group)
    await ben.store.apply(Changes(delivered=[delivered]))
    [*_, message] = await ben.store.messages(0, limit=9, conversation=group_id)

    assert (message.content, message.ciphertext) == (None, body)


async def test_nothing_is_lost_or_doubled_when_the_sender_dies_at_every_step(town: Town) -> None:
    town.loses_answers = True
    ann, ben, cid = town.phones.values()
    await ann.says("one")
    await town.settle()
    town.remove(ANN.user_id, CID.user_id)
    await town.link(BEN_2)
    await ann.says("two")
    await town.settle()

    assert await ben.texts() == ["one", "two"]
    assert await cid.texts() == ["one"]
    assert len(town.to_group) == 2


async def chains_known_to(phone: Phone) -> set[int]:
    """The chains of ann's that the device could read."""
    query = "SELECT reader FROM key_reader"
    rows = await phone.store.groups._database.run(lambda c: c.execute(query).fetchall())
    return {chain.chain_id for (stored,) in rows for chain in load_reader(stored).chains}


async def forced(town: Town, phone: Phone, send: send_pb2.Send) -> None:
    """The mesh delivers a message of ann's to whom it was not written."""
    accepted = town.accepted[send.client_message_id]
    place = (GROUP, accepted.seq, accepted.message_id, *ANN, accepted.accepted_at)
    delivered = Delivered(*place, send.shared.type, send.shared.ciphertext, is_group=True)
    await phone.store.apply(Changes(delivered=[delivered]))
