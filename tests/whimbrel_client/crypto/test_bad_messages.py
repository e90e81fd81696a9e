"""Truncated, bit-flipped, replayed and foreign messages: refused by type, and nothing changes."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.whimbrel_client.crypto.people import Person
from tests.whimbrel_client.crypto.test_sessions import acquainted
from whimbrel.crypto.v1 import wire_pb2
from whimbrel_client.crypto import (
    Ciphertext,
    ForgedMessage,
    MalformedMessage,
    MessageKind,
    RepeatedMessage,
    Undecryptable,
    UnsupportedVersion,
    open_prekey,
    open_ratchet,
    sender_keys,
)


@pytest.mark.parametrize("with_spqr", [True, False], ids=["spqr", "no spqr"])
def test_a_message_with_any_bit_flipped_is_refused_and_the_session_survives(
    with_spqr: bool,
) -> None:
    alice, bob = acquainted(with_spqr=with_spqr)
    message = alice.encrypt("bob", b"true")
    before = bob.memory()

    for place in range(len(message.body)):
        forged = bytearray(message.body)
        forged[place] ^= 1 << place % 8
        with pytest.raises(Undecryptable):
            bob.decrypt("alice", Ciphertext(MessageKind.RATCHET, bytes(forged)))

    assert bob.memory() == before
    assert bob.decrypt("alice", message) == b"true"


def test_a_message_cut_anywhere_is_refused_and_the_session_survives() -> None:
    alice, bob = acquainted()
    message = alice.encrypt("bob", b"true")

    for size in range(len(message.body)):
        with pytest.raises(Undecryptable):
            bob.decrypt("alice", Ciphertext(MessageKind.RATCHET, message.body[:size]))

    assert bob.decrypt("alice", message) == b"true"


def test_a_first_message_cut_anywhere_is_refused_and_uses_nothing_up() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    first = alice.encrypt("bob", b"true")
    before = bob.memory()

    for size in range(0, len(first.body), 11):
        with pytest.raises(Undecryptable):
            bob.decrypt("alice", Ciphertext(MessageKind.PREKEY, first.body[:size]))

    assert bob.memory() == before
    assert bob.decrypt("alice", first) == b"true"


def test_a_first_message_with_a_bit_of_its_keys_flipped_is_refused_and_uses_nothing_up() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    first = alice.encrypt("bob", b"true")
    before = bob.memory()

    for place in range(5, len(first.body), 13):
        forged = bytearray(first.body)
        forged[place] ^= 1
        try:
            bob.decrypt("alice", Ciphertext(MessageKind.PREKEY, bytes(forged)))
        except Undecryptable:
            assert bob.memory() == before

    bob.restart_with(before)
    assert bob.decrypt("alice", first) == b"true"


@pytest.mark.parametrize("with_spqr", [True, False], ids=["spqr", "no spqr"])
def test_a_message_is_read_once_whether_it_came_in_time_or_late(with_spqr: bool) -> None:
    alice, bob = acquainted(with_spqr=with_spqr)
    late, in_time = alice.encrypt("bob", b"late"), alice.encrypt("bob", b"in time")
    bob.decrypt("alice", in_time)
    bob.decrypt("alice", late)

    for message in (late, in_time):
        with pytest.raises(RepeatedMessage):
            bob.decrypt("alice", message)


def test_a_message_of_a_third_person_is_refused() -> None:
    alice, bob = acquainted()
    eve, victim = Person("eve"), Person("bob")
    eve.open("bob", victim.bundle())
    victim.decrypt("eve", eve.encrypt("bob", b"hello"))
    eve.decrypt("bob", victim.encrypt("eve", b"hello"))

    with pytest.raises(ForgedMessage):
        bob.decrypt("alice", eve.encrypt("bob", b"I am alice"))

    assert bob.decrypt("alice", alice.encrypt("bob", b"true")) == b"true"


def test_a_message_sent_back_to_its_sender_is_refused() -> None:
    alice, _ = acquainted()
    message = alice.encrypt("bob", b"true")

    with pytest.raises(ForgedMessage):
        alice.decrypt("bob", message)


@pytest.mark.parametrize("version", [0, 2, 3, 5, 15])
def test_another_protocol_version_is_refused(version: int) -> None:
    alice, bob = acquainted()
    message = alice.encrypt("bob", b"true")
    first_byte = bytes((version << 4 | 4,))

    for kind in (MessageKind.RATCHET, MessageKind.PREKEY):
        with pytest.raises(UnsupportedVersion):
            bob.decrypt("alice", Ciphertext(kind, first_byte + message.body[1:]))


def test_a_session_with_spqr_takes_no_message_without() -> None:
    alice, bob = acquainted()
    message = alice.encrypt("bob", b"true")
    parsed = wire_pb2.RatchetMessage.FromString(message.body[1:-8])
    parsed.ClearField("pq_ratchet")
    stripped = message.body[:1] + parsed.SerializeToString() + message.body[-8:]

    with pytest.raises(MalformedMessage):
        bob.decrypt("alice", Ciphertext(MessageKind.RATCHET, stripped))


@pytest.mark.parametrize("field", ["base_key", "identity_key"])
def test_a_first_message_with_a_weak_key_is_refused(field: str) -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    first = alice.encrypt("bob", b"true")
    opening = wire_pb2.PrekeyMessage.FromString(first.body[1:])
    setattr(opening, field, b"\x05" + bytes(32))
    weak = Ciphertext(first.kind, first.body[:1] + opening.SerializeToString())

    with pytest.raises(MalformedMessage):
        bob.decrypt("alice", weak)

    assert bob.decrypt("alice", first) == b"true"


def test_a_message_with_a_weak_ratchet_key_is_refused() -> None:
    alice, bob = acquainted()
    message = alice.encrypt("bob", b"true")
    parsed = wire_pb2.RatchetMessage.FromString(message.body[1:-8])
    parsed.ratchet_key = b"\x05" + bytes(32)
    weak = message.body[:1] + parsed.SerializeToString() + message.body[-8:]

    with pytest.raises(MalformedMessage):
        bob.decrypt("alice", Ciphertext(MessageKind.RATCHET, weak))


@pytest.mark.parametrize(
    ("read", "first_byte"),
    [
        (open_ratchet, b"\x44"),
        (open_prekey, b"\x44"),
        (sender_keys.open_message, b"\x33"),
        (sender_keys.open_distribution, b"\x33"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    read: Callable[[bytes], object], first_byte: bytes, body: bytes
) -> None:
    for each in (body, first_byte + body):
        try:
            read(each)
        except Undecryptable:
            continue
