"""Sender keys with the real libsignal, in groups of twenty where every second one uses it."""

import itertools
import random
import uuid

import pytest

from tests.whimbrel_client.crypto.libsignal.peer import Foreigner, Libsignal, PeerRefused
from tests.whimbrel_client.crypto.people import Person
from whimbrel_client.crypto import Undecryptable

pytestmark = pytest.mark.timeout(300)


def a_group(libsignal: Libsignal, size: int) -> list[Person | Foreigner]:
    return [Foreigner(libsignal) if i % 2 else Person() for i in range(size)]


def hand_out(group: uuid.UUID, members: list[Person | Foreigner]) -> None:
    for sender in members:
        distribution = sender.distribute(group)
        for receiver in members:
            if receiver is not sender:
                receiver.admit(sender.name, distribution)


def test_in_a_group_of_twenty_everybody_reads_everybody(libsignal: Libsignal) -> None:
    group, members = uuid.uuid4(), a_group(libsignal, 20)
    hand_out(group, members)

    said = [(each, each.group_encrypt(group, each.name.encode())) for each in members * 2]

    for (sender, body), receiver in itertools.product(said, members):
        if receiver is not sender:
            assert receiver.group_decrypt(sender.name, body) == sender.name.encode()


def test_messages_to_a_group_are_read_in_any_order_and_once(libsignal: Libsignal) -> None:
    group, (ours, theirs) = uuid.uuid4(), a_group(libsignal, 2)
    hand_out(group, [ours, theirs])

    for sender, receiver in ((ours, theirs), (theirs, ours)):
        said = [(b"%d" % i, sender.group_encrypt(group, b"%d" % i)) for i in range(50)]
        lost = said.pop(7)
        random.Random(2).shuffle(said)
        for plaintext, body in said:
            assert receiver.group_decrypt(sender.name, body) == plaintext
        with pytest.raises((Undecryptable, PeerRefused)):
            receiver.group_decrypt(sender.name, said[0][1])
        assert receiver.group_decrypt(sender.name, lost[1]) == lost[0]


def test_who_joins_later_reads_only_what_is_said_from_then_on(libsignal: Libsignal) -> None:
    group, (ours, theirs) = uuid.uuid4(), a_group(libsignal, 2)
    ours.distribute(group)
    before = ours.group_encrypt(group, b"before")

    theirs.admit(ours.name, ours.distribute(group))

    with pytest.raises(PeerRefused):
        theirs.group_decrypt(ours.name, before)
    assert theirs.group_decrypt(ours.name, ours.group_encrypt(group, b"after")) == b"after"


def test_a_message_to_a_group_with_one_bit_flipped_is_refused(libsignal: Libsignal) -> None:
    group, (ours, theirs) = uuid.uuid4(), a_group(libsignal, 2)
    hand_out(group, [ours, theirs])
    body = theirs.group_encrypt(group, b"true")

    for place in range(0, len(body), 7):
        forged = bytearray(body)
        forged[place] ^= 1
        with pytest.raises(Undecryptable):
            ours.group_decrypt(theirs.name, bytes(forged))

    assert ours.group_decrypt(theirs.name, body) == b"true"
