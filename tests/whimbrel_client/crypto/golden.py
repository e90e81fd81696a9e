"""Conversations with the real libsignal, recorded so that they can be had again without it.

On our side all randomness comes from a seed while a conversation is recorded or replayed, so each
message that we write must come out byte for byte as the one that libsignal read.

To record them anew: python -m tests.whimbrel_client.crypto.golden
"""

import base64
import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tests.whimbrel_client.crypto.libsignal.peer import (
    WITH_SPQR,
    WITHOUT_SPQR,
    Foreigner,
    Libsignal,
)
from tests.whimbrel_client.crypto.people import Person
from tests.whimbrel_client.crypto.rough_road import RoughRoad
from whimbrel_client.crypto import (
    Bundle,
    Ciphertext,
    MessageKind,
    PublicPrekey,
    Undecryptable,
    kyber,
    randomness,
)

FOLDER = Path(__file__).parent / "golden"
_ROUNDS = 70
_DIGEST_SIZE = 12


@contextmanager
def seeded(seed: str, encapsulate: Callable[[bytes], tuple[bytes, bytes]]) -> Iterator[None]:
    """Let our side draw its randomness from a seed, and its encapsulations from elsewhere."""
    count = 0

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(size)

    with (
        mock.patch.object(randomness, "draw", draw),
        mock.patch.object(kyber, "encapsulate", encapsulate),
    ):
        yield


class Recorded:
    """Our person, whose every step is written down."""

    def __init__(self, person: Person) -> None:
        self.name = person.name
        self.events: list[list[str | None]] = []
        self._person = person

    def encrypt(self, peer: str, plaintext: bytes) -> Ciphertext:
        ciphertext = self._person.encrypt(peer, plaintext)
        self.events.append(["send", plaintext.decode(), ciphertext.kind.value, digest(ciphertext)])
        return ciphertext

    def decrypt(self, peer: str, ciphertext: Ciphertext) -> bytes:
        event = ["receive", text(ciphertext.body), ciphertext.kind.value]
        try:
            plaintext = self._person.decrypt(peer, ciphertext)
        except Undecryptable:
            self.events.append([*event, None])
            raise
        self.events.append([*event, plaintext.decode()])
        return plaintext


def digest(ciphertext: Ciphertext) -> str:
    return hashlib.sha256(ciphertext.body).hexdigest()[: 2 * _DIGEST_SIZE]


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def raw(content: str) -> bytes:
    return base64.b64decode(content)


def record(libsignal: Libsignal, *, we_open: bool, one_time: bool) -> dict[str, Any]:
    """Have a conversation and return all that is needed to have it again."""
    with_spqr = libsignal.version == WITH_SPQR
    opener = "whimbrel" if we_open else "libsignal"
    seed = f"{libsignal.version} {opener}"
    encapsulations: list[list[str]] = []

    def encapsulate(public: bytes) -> tuple[bytes, bytes]:
        secret, ciphertext = genuine(public)
        encapsulations.append([text(secret), text(ciphertext)])
        return secret, ciphertext

    genuine = kyber.encapsulate
    theirs = Foreigner(libsignal, "theirs " + opener)
    with seeded(seed, encapsulate):
        person = Person("ours", with_spqr=with_spqr)
        ours = Recorded(person)
        bundle = theirs.bundle(one_time=one_time) if we_open else person.bundle(one_time=one_time)
        if we_open:
            person.open(theirs.name, bundle)
        else:
            theirs.open(person.name, bundle)
        left, right = (ours, theirs) if we_open else (theirs, ours)
        RoughRoad(left, right, random.Random(seed)).walk(_ROUNDS)
    return {
        "libsignal": libsignal.version,
        "seed": seed,
        "with_spqr": with_spqr,
        "we_open": we_open,
        "peer": theirs.name,
        "bundle": dump_bundle(bundle),
        "encapsulations": encapsulations,
        "events": ours.events,
    }


def record_group(libsignal: Libsignal) -> dict[str, Any]:
    """Let a foreigner hand out a sender key and write to a group."""
    group, theirs = uuid.UUID(int=1, version=4), Foreigner(libsignal, "group sender")
    distribution = theirs.distribute(group)
    said = [f"to the group: {i}" for i in range(20)]
    return {
        "libsignal": libsignal.version,
        "distribution": text(distribution),
        "said": [[each, text(theirs.group_encrypt(group, each.encode()))] for each in said],
    }


def dump_bundle(bundle: Bundle) -> dict[str, Any]:
    one_time = bundle.one_time
    return {
        "identity": text(bundle.identity),
        "registration_id": bundle.registration_id,
        "signed": [bundle.signed.id, text(bundle.signed.key), text(bundle.signed.signature)],
        "kem": [bundle.kem.id, text(bundle.kem.key), text(bundle.kem.signature)],
        "one_time": [one_time[0], text(one_time[1])] if one_time is not None else None,
    }


def load_bundle(stored: dict[str, Any]) -> Bundle:
    def prekey(values: list[Any]) -> PublicPrekey:
        return PublicPrekey(values[0], raw(values[1]), raw(values[2]))

    one_time = stored["one_time"]
    return Bundle(
        identity=raw(stored["identity"]),
        registration_id=stored["registration_id"],
        signed=prekey(stored["signed"]),
        kem=prekey(stored["kem"]),
        one_time=(one_time[0], raw(one_time[1])) if one_time is not None else None,
    )


def replay(recorded: dict[str, Any]) -> int:
    """Have a conversation again; return how many messages were read."""
    stored = iter(recorded["encapsulations"])

    def encapsulate(_: bytes) -> tuple[bytes, bytes]:
        secret, ciphertext = next(stored)
        return raw(secret), raw(ciphertext)

    read = 0
    peer, bundle = recorded["peer"], load_bundle(recorded["bundle"])
    with seeded(recorded["seed"], encapsulate):
        ours = Person("ours", with_spqr=recorded["with_spqr"])
        if recorded["we_open"]:
            ours.open(peer, bundle)
        else:
            assert ours.bundle(one_time=bundle.one_time is not None) == bundle
        for step, *values in recorded["events"]:
            if step == "send":
                _send(ours, peer, *values)
            else:
                read += _receive(ours, peer, *values)
    return read


def _send(ours: Person, peer: str, plaintext: str, kind: str, expected: str) -> None:
    ciphertext = ours.encrypt(peer, plaintext.encode())
    assert (ciphertext.kind.value, digest(ciphertext)) == (kind, expected)


def _receive(ours: Person, peer: str, body: str, kind: str, plaintext: str | None) -> int:
    ciphertext = Ciphertext(MessageKind(kind), raw(body))
    try:
        read = ours.decrypt(peer, ciphertext).decode()
    except Undecryptable:
        read = None
    assert read == plaintext
    return int(read is not None)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for version in (WITHOUT_SPQR, WITH_SPQR):
        with Libsignal(version) as libsignal:
            for we_open in (True, False):
                recorded = record(libsignal, we_open=we_open, one_time=we_open)
                name = f"{version}-{'whimbrel' if we_open else 'libsignal'}-opens.json"
                _write(name, recorded)
            _write(f"{version}-group.json", record_group(libsignal))


def _write(name: str, recorded: dict[str, Any]) -> None:
    (FOLDER / name).write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main()
