"""Two people talk over a road that loses, delays, doubles and forges what they say."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tests.whimbrel_client.crypto.libsignal.peer import PeerRefused
from whimbrel_client.crypto import Ciphertext, Undecryptable

REFUSALS = (Undecryptable, PeerRefused)
_LATE, _LOST, _DOUBLED, _FORGED = 0.10, 0.05, 0.05, 0.05
# Both sides remember five receiving chains, and each round begins new ones.
_LONGEST_DELAY = 4
_MOST_SAID = 3


class Talker(Protocol):
    """Who can hold up one end of a conversation."""

    name: str

    def encrypt(self, peer: str, plaintext: bytes) -> Ciphertext: ...

    def decrypt(self, peer: str, ciphertext: Ciphertext) -> bytes: ...


@dataclass
class Tally:
    """What happened on the road."""

    said: int = 0
    read: int = 0
    late: int = 0
    lost: int = 0
    doubled: int = 0
    forged: int = 0


@dataclass
class _Parcel:
    sender: Talker
    receiver: Talker
    plaintext: bytes
    ciphertext: Ciphertext


@dataclass
class RoughRoad:
    """A conversation in rounds; in each, both say up to three things."""

    left: Talker
    right: Talker
    chance: random.Random
    tally: Tally = field(default_factory=Tally)
    _late: dict[int, list[_Parcel]] = field(default_factory=dict)

    def walk(self, rounds: int) -> Tally:
        for round_ in range(rounds):
            for parcel in self._said_in(round_):
                self._carry(parcel, round_)
            for parcel in self._late.pop(round_, []):
                self._hand_over(parcel)
        for parcels in self._late.values():
            for parcel in parcels:
                self._hand_over(parcel)
        return self.tally

    def _said_in(self, round_: int) -> Iterator[_Parcel]:
        for sender, receiver in ((self.left, self.right), (self.right, self.left)):
            for i in range(self.chance.randint(1, _MOST_SAID)):
                plaintext = f"{sender.name} said {i} in round {round_}".encode()
                ciphertext = sender.encrypt(receiver.name, plaintext)
                self.tally.said += 1
                yield _Parcel(sender, receiver, plaintext, ciphertext)

    def _carry(self, parcel: _Parcel, round_: int) -> None:
        # The first round is smooth: it opens the session.
        fate = self.chance.random() if round_ > 0 else 1.0
        if fate < _LATE:
            due = round_ + self.chance.randint(1, _LONGEST_DELAY)
            self._late.setdefault(due, []).append(parcel)
            self.tally.late += 1
        elif fate < _LATE + _LOST:
            self.tally.lost += 1
        elif fate < _LATE + _LOST + _DOUBLED:
            self._hand_over(parcel)
            self._refuse(parcel, parcel.ciphertext)
            self.tally.doubled += 1
        elif fate < _LATE + _LOST + _DOUBLED + _FORGED:
            self._refuse(parcel, self._forged(parcel.ciphertext))
            self._hand_over(parcel)
            self.tally.forged += 1
        else:
            self._hand_over(parcel)

    def _hand_over(self, parcel: _Parcel) -> None:
        read = parcel.receiver.decrypt(parcel.sender.name, parcel.ciphertext)
        assert read == parcel.plaintext
        self.tally.read += 1

    def _refuse(self, parcel: _Parcel, ciphertext: Ciphertext) -> None:
        try:
            parcel.receiver.decrypt(parcel.sender.name, ciphertext)
        except REFUSALS:
            return
        raise AssertionError("a doubled or forged message was read")

    def _forged(self, ciphertext: Ciphertext) -> Ciphertext:
        body = bytearray(ciphertext.body)
        body[self.chance.randrange(len(body))] ^= 1 << self.chance.randrange(8)
        return Ciphertext(ciphertext.kind, bytes(body))
