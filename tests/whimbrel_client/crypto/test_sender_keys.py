"""Sender keys: what a group's reader takes and refuses."""

import uuid

import pytest

from tests.whimbrel_client.crypto.people import Person
from whimbrel_client.crypto import (
    ForgedMessage,
    MalformedMessage,
    MessageTooFarAhead,
    RepeatedMessage,
    SenderKeyReader,
    SessionMissing,
    Undecryptable,
    UnsupportedVersion,
    double_ratchet,
    sender_keys,
)

GROUP = uuid.UUID(int=7)


def a_reader(sender: Person) -> Person:
    reader = Person("reader")
    reader.admit(sender.name, sender.distribute(GROUP))
    return reader


def test_messages_are_read_in_any_order_and_once() -> None:
    sender = Person("sender")
    reader = a_reader(sender)
    said = [sender.group_encrypt(GROUP, b"%d" % i) for i in range(10)]

    for i in (9, 0, 5, 1, 8, 2, 7, 3, 6, 4):
        assert reader.group_decrypt("sender", said[i]) == b"%d" % i
    for body in said:
        with pytest.raises(RepeatedMessage):
            reader.group_decrypt("sender", body)


def test_a_message_with_any_bit_flipped_is_refused_and_the_chain_survives() -> None:
    sender = Person("sender")
    reader = a_reader(sender)
    body = sender.group_encrypt(GROUP, b"true")
    before = reader.memory()

    for place in range(len(body)):
        forged = bytearray(body)
        forged[place] ^= 1 << place % 8
        with pytest.raises(Undecryptable):
            reader.group_decrypt("sender", bytes(forged))
        with pytest.raises(Undecryptable):
            reader.group_decrypt("sender", body[:place])

    assert reader.memory() == before
    assert reader.group_decrypt("sender", body) == b"true"


def test_a_reader_cannot_write_in_the_senders_name() -> None:
    sender = Person("sender")
    reader = a_reader(sender)
    known = sender_keys.open_distribution(sender.distribute(GROUP))
    own = sender_keys.create(GROUP.bytes)
    pretended = sender_keys.SenderKey(
        GROUP.bytes,
        known.chain_id,
        known.iteration,
        known.chain_key,
        own.signing_seed,
        own.signing_key,
    )

    _, ciphertext = pretended.encrypt(b"I am the sender")

    with pytest.raises(ForgedMessage):
        reader.group_decrypt("sender", ciphertext.body)


def test_a_distribution_that_comes_again_does_not_allow_replays() -> None:
    sender = Person("sender")
    first = sender.distribute(GROUP)
    reader = Person("reader")
    reader.admit("sender", first)
    body = sender.group_encrypt(GROUP, b"once")
    reader.group_decrypt("sender", body)

    reader.admit("sender", first)

    with pytest.raises(RepeatedMessage):
        reader.group_decrypt("sender", body)


def test_after_a_rotation_the_old_chain_is_still_read_but_tells_nothing_new() -> None:
    sender = Person("sender")
    reader, gone = a_reader(sender), a_reader(sender)
    late = sender.group_encrypt(GROUP, b"late")

    del sender.sender_keys[GROUP]
    reader.admit("sender", sender.distribute(GROUP))
    new = sender.group_encrypt(GROUP, b"new")

    assert reader.group_decrypt("sender", new) == b"new"
    assert reader.group_decrypt("sender", late) == b"late"
    with pytest.raises(SessionMissing):
        gone.group_decrypt("sender", new)


def test_five_chains_of_a_sender_are_remembered() -> None:
    keys = [sender_keys.create(GROUP.bytes) for _ in range(6)]
    reader = SenderKeyReader()

    for key in keys:
        reader = reader.admit(sender_keys.open_distribution(key.distribution()))

    assert [chain.chain_id for chain in reader.chains] == [k.chain_id for k in keys[:0:-1]]


def test_the_bounds_on_skipped_messages_hold() -> None:
    key = sender_keys.create(GROUP.bytes)
    reader = SenderKeyReader().admit(sender_keys.open_distribution(key.distribution()))
    said = []
    for _ in range(double_ratchet.MOST_SKIPPED + 2):
        key, ciphertext = key.encrypt(b"x")
        said.append(sender_keys.open_message(ciphertext.body))

    reader, _ = reader.decrypt(said[-1])

    with pytest.raises(RepeatedMessage):
        reader.decrypt(said[0])
    assert reader.decrypt(said[1])[1] == b"x"
    ahead = sender_keys.SenderKey(
        key.distribution_id,
        key.chain_id,
        key.iteration + double_ratchet.FARTHEST_JUMP + 1,
        key.chain_key,
        key.signing_seed,
        key.signing_key,
    )
    with pytest.raises(MessageTooFarAhead):
        reader.decrypt(sender_keys.open_message(ahead.encrypt(b"x")[1].body))


@pytest.mark.parametrize("read", [sender_keys.open_message, sender_keys.open_distribution])
def test_what_is_no_message_is_refused(read: object) -> None:
    assert callable(read)
    for body in (b"", b"\x33", b"\x33\xff\xff", b"\x33" + bytes(100)):
        with pytest.raises(MalformedMessage):
            read(body)
    with pytest.raises(UnsupportedVersion):
        read(b"\x43" + bytes(100))
