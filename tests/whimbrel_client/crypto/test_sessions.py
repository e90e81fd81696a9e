"""Sessions between two people: how they open, what is used up, where the bounds are."""

import dataclasses

import pytest

from tests.whimbrel_client.crypto.people import Person
from whimbrel.crypto.v1 import wire_pb2
from whimbrel_client.crypto import (
    Ciphertext,
    ForgedMessage,
    InvalidKey,
    InvalidSignature,
    MessageKind,
    MessageTooFarAhead,
    PrekeyMissing,
    RepeatedMessage,
    SessionIncomplete,
    SessionMissing,
    Undecryptable,
    UnsupportedVersion,
    curve,
    double_ratchet,
    dump_record,
    kyber,
)


def acquainted(*, with_spqr: bool = True) -> tuple[Person, Person]:
    """Two people between whom a message has gone each way."""
    alice, bob = Person("alice", with_spqr=with_spqr), Person("bob", with_spqr=with_spqr)
    alice.open("bob", bob.bundle())
    bob.decrypt("alice", alice.encrypt("bob", b"hello"))
    alice.decrypt("bob", bob.encrypt("alice", b"hello"))
    return alice, bob


def test_messages_open_the_session_until_one_is_answered() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())

    first, second = alice.encrypt("bob", b"1"), alice.encrypt("bob", b"2")

    assert (first.kind, second.kind) == (MessageKind.PREKEY, MessageKind.PREKEY)
    assert bob.decrypt("alice", second) == b"2"
    assert bob.decrypt("alice", first) == b"1"
    alice.decrypt("bob", bob.encrypt("alice", b"answer"))
    assert alice.encrypt("bob", b"3").kind is MessageKind.RATCHET


def test_one_time_keys_go_only_after_a_successful_decryption() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    first = alice.encrypt("bob", b"hello")
    opening = wire_pb2.PrekeyMessage.FromString(first.body[1:])
    opening.message = opening.message[:-1] + bytes((opening.message[-1] ^ 1,))
    forged = Ciphertext(first.kind, first.body[:1] + opening.SerializeToString())

    with pytest.raises(ForgedMessage):
        bob.decrypt("alice", forged)
    assert (len(bob.one_time), len(bob.kem)) == (1, 1)

    assert bob.decrypt("alice", first) == b"hello"
    assert (len(bob.one_time), len(bob.kem)) == (0, 0)


def test_a_session_whose_one_time_key_is_gone_cannot_be_opened() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    first = alice.encrypt("bob", b"hello")
    bob.one_time.clear()

    with pytest.raises(PrekeyMissing):
        bob.decrypt("alice", first)


def test_a_last_resort_key_stays_and_its_replay_is_refused() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle(one_time=False, last_resort=True))
    first = alice.encrypt("bob", b"hello")
    assert bob.decrypt("alice", first) == b"hello"
    assert len(bob.kem) == 1

    # Without the session, only the memory of the use tells that this is a replay.
    bob.records.clear()

    with pytest.raises(RepeatedMessage):
        bob.decrypt("alice", first)


def test_a_first_message_that_comes_twice_is_read_once() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    first = alice.encrypt("bob", b"hello")
    bob.decrypt("alice", first)

    with pytest.raises(RepeatedMessage):
        bob.decrypt("alice", first)


def test_without_a_session_nothing_is_written_or_read() -> None:
    alice, bob = acquainted()
    message = alice.encrypt("bob", b"hello")
    stranger = Person()

    with pytest.raises(SessionIncomplete):
        stranger.encrypt("bob", b"hello")
    with pytest.raises(SessionMissing):
        stranger.decrypt("alice", message)
    assert bob.decrypt("alice", message) == b"hello"


def test_a_session_that_was_put_away_is_still_read_with() -> None:
    alice, bob = acquainted()
    late = bob.encrypt("alice", b"late")

    record = alice.record("bob").put_away()

    with pytest.raises(SessionIncomplete):
        record.encrypt(b"hello")
    alice.records["bob"] = dump_record(record)
    assert alice.decrypt("bob", late) == b"late"


@pytest.mark.parametrize("forged", ["signed", "kem"])
def test_a_bundle_with_a_forged_signature_opens_nothing(forged: str) -> None:
    alice, bob = Person("alice"), Person("bob")
    bundle = bob.bundle()
    prekey = getattr(bundle, forged)
    lying = dataclasses.replace(prekey, signature=bytes(64))

    with pytest.raises(InvalidSignature):
        alice.open("bob", dataclasses.replace(bundle, **{forged: lying}))
    assert alice.records == {}


def test_a_bundle_of_another_person_opens_nothing() -> None:
    alice, bob, eve = Person("alice"), Person("bob"), Person("eve")

    with pytest.raises(InvalidSignature):
        alice.open("bob", dataclasses.replace(eve.bundle(), identity=bob.identity))


def test_a_bundle_with_a_malformed_or_weak_key_opens_nothing() -> None:
    alice, bob = Person("alice"), Person("bob")
    bundle = bob.bundle()

    with pytest.raises(InvalidKey):
        alice.open("bob", dataclasses.replace(bundle, one_time=(1, b"\x05" + bytes(32))))
    with pytest.raises(InvalidKey):
        alice.open("bob", dataclasses.replace(bundle, identity=bundle.identity[1:]))
    cut = dataclasses.replace(bundle.kem, key=bundle.kem.key[: kyber.PUBLIC_KEY_SIZE - 1])
    with pytest.raises(InvalidKey):
        alice.open("bob", dataclasses.replace(bundle, kem=cut))


def test_a_chain_remembers_2000_skipped_messages_and_forgets_the_oldest() -> None:
    alice, bob = acquainted(with_spqr=False)
    skipped = [alice.encrypt("bob", b"%d" % i) for i in range(double_ratchet.MOST_SKIPPED + 1)]

    assert bob.decrypt("alice", alice.encrypt("bob", b"last")) == b"last"

    with pytest.raises(RepeatedMessage):
        bob.decrypt("alice", skipped[0])
    assert bob.decrypt("alice", skipped[1]) == b"1"
    assert bob.decrypt("alice", skipped[-1]) == b"2000"


def test_a_jump_beyond_25000_is_refused() -> None:
    ratchet = double_ratchet.start_as_responder(bytes(32), bytes(32), curve.generate())
    their_key = curve.generate().public

    after, _ = double_ratchet.to_receive(ratchet, their_key, double_ratchet.FARTHEST_JUMP)

    assert len(after.receiving[0].skipped) == double_ratchet.MOST_SKIPPED
    with pytest.raises(MessageTooFarAhead):
        double_ratchet.to_receive(ratchet, their_key, double_ratchet.FARTHEST_JUMP + 1)


def test_five_receiving_chains_are_remembered() -> None:
    alice, bob = acquainted()
    late = []
    for i in range(6):
        late.append(alice.encrypt("bob", b"%d" % i))
        bob.decrypt("alice", alice.encrypt("bob", b"turn"))
        alice.decrypt("bob", bob.encrypt("alice", b"turn"))
    bob.decrypt("alice", alice.encrypt("bob", b"turn"))

    for i in range(2, 6):
        assert bob.decrypt("alice", late[i]) == b"%d" % i
    with pytest.raises(ForgedMessage):
        bob.decrypt("alice", late[0])


def test_two_who_open_sessions_at_the_same_time_settle_on_one() -> None:
    alice, bob = Person("alice"), Person("bob")
    alice.open("bob", bob.bundle())
    bob.open("alice", alice.bundle())
    from_alice, from_bob = alice.encrypt("bob", b"1"), bob.encrypt("alice", b"2")
    assert bob.decrypt("alice", from_alice) == b"1"
    assert alice.decrypt("bob", from_bob) == b"2"

    for i in range(3):
        assert bob.decrypt("alice", alice.encrypt("bob", b"%d" % i)) == b"%d" % i
        assert alice.decrypt("bob", bob.encrypt("alice", b"%d" % i)) == b"%d" % i

    alices, bobs = alice.record("bob").current, bob.record("alice").current
    assert alices is not None
    assert bobs is not None
    assert alices.ends.base_key == bobs.ends.base_key


def test_a_message_of_an_earlier_session_is_read_once() -> None:
    alice, bob = acquainted()
    late = alice.encrypt("bob", b"late")
    alice.open("bob", bob.bundle())
    bob.decrypt("alice", alice.encrypt("bob", b"new session"))
    assert bob.decrypt("alice", late) == b"late"

    with pytest.raises(RepeatedMessage):
        bob.decrypt("alice", late)


def test_a_session_without_spqr_is_refused_where_it_is_required() -> None:
    alice, bob = Person("alice", with_spqr=False), Person("bob", with_spqr=True)
    alice.open("bob", bob.bundle())
    before = bob.memory()

    with pytest.raises(UnsupportedVersion):
        bob.decrypt("alice", alice.encrypt("bob", b"hello"))

    assert bob.memory() == before


def test_ten_earlier_sessions_are_remembered() -> None:
    alice, bob = acquainted()
    late = []
    for i in range(12):
        late.append(alice.encrypt("bob", b"%d" % i))
        alice.open("bob", bob.bundle())
        bob.decrypt("alice", alice.encrypt("bob", b"new session"))

    assert bob.decrypt("alice", late[2]) == b"2"
    assert bob.decrypt("alice", late[11]) == b"11"
    with pytest.raises(Undecryptable) as refused:
        bob.decrypt("alice", late[0])
    # It was never read, so it must not pass for a repetition.
    assert not isinstance(refused.value, RepeatedMessage)
