"""Sessions with the real libsignal: 0.88.3 (v4 without SPQR) and 0.103.0 (v4 with SPQR)."""

import random

import pytest

from tests.whimbrel_client.crypto.libsignal.peer import Foreigner, Libsignal, PeerRefused
from tests.whimbrel_client.crypto.people import Person
from tests.whimbrel_client.crypto.rough_road import RoughRoad
from whimbrel_client.crypto import (
    InvalidSignature,
    MessageKind,
    UnsupportedVersion,
    curve,
)

# The first of these tests to run installs libsignal from npm.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("one_time", [True, False], ids=["one-time keys", "no one-time keys"])
def test_libsignal_reads_our_first_message_and_answers(
    libsignal: Libsignal, with_spqr: bool, one_time: bool
) -> None:
    ours, theirs = Person(with_spqr=with_spqr), Foreigner(libsignal)
    ours.open(theirs.name, theirs.bundle(one_time=one_time))

    first = ours.encrypt(theirs.name, b"hello")

    assert first.kind is MessageKind.PREKEY
    assert theirs.decrypt(ours.name, first) == b"hello"
    assert ours.decrypt(theirs.name, theirs.encrypt(ours.name, b"hello back")) == b"hello back"
    assert ours.encrypt(theirs.name, b"!").kind is MessageKind.RATCHET


@pytest.mark.parametrize("one_time", [True, False], ids=["one-time keys", "no one-time keys"])
def test_we_read_libsignals_first_message_and_answer(
    libsignal: Libsignal, with_spqr: bool, one_time: bool
) -> None:
    ours, theirs = Person(with_spqr=with_spqr), Foreigner(libsignal)
    theirs.open(ours.name, ours.bundle(one_time=one_time))

    first = theirs.encrypt(ours.name, b"hello")

    assert first.kind is MessageKind.PREKEY
    assert ours.decrypt(theirs.name, first) == b"hello"
    assert theirs.decrypt(ours.name, ours.encrypt(theirs.name, b"hello back")) == b"hello back"
    assert theirs.encrypt(ours.name, b"!").kind is MessageKind.RATCHET


@pytest.mark.parametrize("opener", ["whimbrel", "libsignal"])
def test_400_rounds_survive_late_lost_doubled_and_forged_messages(
    libsignal: Libsignal, with_spqr: bool, opener: str
) -> None:
    ours, theirs = Person(with_spqr=with_spqr), Foreigner(libsignal)
    left, right = (ours, theirs) if opener == "whimbrel" else (theirs, ours)
    left.open(right.name, right.bundle())

    tally = RoughRoad(left, right, random.Random(opener)).walk(400)

    assert tally.read + tally.lost == tally.said
    assert min(tally.late, tally.lost, tally.doubled, tally.forged) > 10
    session = ours.record(theirs.name).current
    assert session is not None
    if with_spqr:
        assert session.spqr is not None
        assert session.spqr.braid.epoch > 5
    else:
        assert session.spqr is None


def test_many_messages_in_one_direction_are_read_in_any_order(
    libsignal: Libsignal, with_spqr: bool
) -> None:
    ours, theirs = Person(with_spqr=with_spqr), Foreigner(libsignal)
    ours.open(theirs.name, theirs.bundle())
    chance = random.Random(1)
    to_them = [(b"%d" % i, ours.encrypt(theirs.name, b"%d" % i)) for i in range(60)]
    chance.shuffle(to_them)

    for plaintext, ciphertext in to_them:
        assert theirs.decrypt(ours.name, ciphertext) == plaintext

    to_us = [(b"%d" % i, theirs.encrypt(ours.name, b"%d" % i)) for i in range(60)]
    chance.shuffle(to_us)
    for plaintext, ciphertext in to_us:
        assert ours.decrypt(theirs.name, ciphertext) == plaintext


def test_two_who_open_sessions_at_the_same_time_end_up_in_one(
    libsignal: Libsignal, with_spqr: bool
) -> None:
    ours, theirs = Person(with_spqr=with_spqr), Foreigner(libsignal)
    ours.open(theirs.name, theirs.bundle())
    theirs.open(ours.name, ours.bundle())
    from_us, from_them = ours.encrypt(theirs.name, b"1"), theirs.encrypt(ours.name, b"2")

    assert theirs.decrypt(ours.name, from_us) == b"1"
    assert ours.decrypt(theirs.name, from_them) == b"2"

    for i in range(20):
        word = b"%d" % i
        assert theirs.decrypt(ours.name, ours.encrypt(theirs.name, word)) == word
        assert ours.decrypt(theirs.name, theirs.encrypt(ours.name, word)) == word


def test_libsignal_without_spqr_takes_up_ours_when_we_open_the_session(
    libsignal_0_88: Libsignal,
) -> None:
    ours, theirs = Person(with_spqr=True), Foreigner(libsignal_0_88)
    ours.open(theirs.name, theirs.bundle())

    for i in range(30):
        word = b"%d" % i
        assert theirs.decrypt(ours.name, ours.encrypt(theirs.name, word)) == word
        assert ours.decrypt(theirs.name, theirs.encrypt(ours.name, word)) == word


def test_a_device_that_wants_spqr_refuses_a_session_that_could_do_without(
    libsignal_0_88: Libsignal,
) -> None:
    ours, theirs = Person(with_spqr=True), Foreigner(libsignal_0_88)
    theirs.open(ours.name, ours.bundle())
    first = theirs.encrypt(ours.name, b"hello")

    with pytest.raises(UnsupportedVersion):
        ours.decrypt(theirs.name, first)

    assert len(ours.one_time) == 1


def test_libsignal_refuses_a_bundle_that_another_identity_signed(libsignal: Libsignal) -> None:
    ours, stranger, theirs = Person(), Person(), Foreigner(libsignal)
    bundle = ours.bundle()
    lying = type(bundle)(
        stranger.identity, bundle.registration_id, bundle.signed, bundle.kem, bundle.one_time
    )

    with pytest.raises(PeerRefused, match="signature"):
        theirs.open(ours.name, lying)


def test_signatures_are_accepted_both_ways(libsignal: Libsignal) -> None:
    ours, theirs = Person(), Foreigner(libsignal)

    # XEdDSA has two Edwards keys for one of ours; several pairs see both.
    for i in range(16):
        pair = curve.generate()
        answer = libsignal.call(
            "verify",
            key=pair.public,
            content=b"%d" % i,
            signature=curve.sign(pair.private, b"%d" % i),
        )
        assert answer["fits"]
        signer = Foreigner(libsignal)
        curve.verify(signer.identity, b"%d" % i, signer.sign(b"%d" % i))

    with pytest.raises(InvalidSignature):
        curve.verify(theirs.identity, b"this", theirs.sign(b"that"))
    forged = libsignal.call(
        "verify",
        key=ours.identity,
        content=b"this",
        signature=curve.sign(ours.device.identity.private, b"that"),
    )
    assert not forged["fits"]
