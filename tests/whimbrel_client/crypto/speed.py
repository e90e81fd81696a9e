"""How fast the protocol core is: CPU time on one core, best of five tries.

usage: python -m tests.whimbrel_client.crypto.speed
"""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.whimbrel_client.crypto.people import Person
from whimbrel_client.crypto import (
    Device,
    PrivatePrekeys,
    SenderKeyReader,
    SessionRecord,
    curve,
    kem_prekey,
    one_time_prekey,
    open_prekey,
    open_ratchet,
    open_sealed,
    seal,
    sender_keys,
    signed_prekey,
)
from whimbrel_client.crypto.prekeys import Bundle, PublicPrekey

PLAINTEXT = bytes(200)
_REPEATS = 5
_MIB = 1 << 20


def best_rate(count: int, work: Callable[[], object]) -> float:
    """Return how often a second the work was done, in the best of some tries."""
    best = 0.0
    for _ in range(_REPEATS):
        started = time.process_time()
        work()
        best = max(best, count / (time.process_time() - started))
    return best


def opened(*, with_spqr: bool) -> tuple[SessionRecord, SessionRecord]:
    """Return both ends of a session over which a message has gone each way."""
    alice, bob = Person("alice", with_spqr=with_spqr), Person("bob", with_spqr=with_spqr)
    alice.open("bob", bob.bundle())
    bob.decrypt("alice", alice.encrypt("bob", b"hello"))
    alice.decrypt("bob", bob.encrypt("alice", b"hello"))
    return alice.record("bob"), bob.record("alice")


def set_up(count: int = 300) -> float:
    """Both sides of a session, from the bundle to the first message read."""
    alice, bob = Device(curve.generate(), 1), Device(curve.generate(), 2)
    signed, kem = signed_prekey(1, bob.identity), kem_prekey(2, bob.identity)
    one_time = one_time_prekey(3)
    bundle = Bundle(
        bob.identity.public,
        2,
        PublicPrekey(1, signed.pair.public, signed.signature),
        PublicPrekey(2, kem.pair.public, kem.signature),
        (3, one_time.pair.public),
    )

    def work() -> None:
        for _ in range(count):
            _, first = SessionRecord().opened(alice, bundle).encrypt(PLAINTEXT)
            own = PrivatePrekeys(signed, kem, one_time)
            SessionRecord().decrypt_first(open_prekey(first.body), bob, own)

    return best_rate(count, work)


def one_way(*, with_spqr: bool, count: int = 3000) -> float:
    """Encrypt and decrypt, without storing."""

    def work() -> None:
        writer, reader = ends
        for _ in range(count):
            writer, ciphertext = writer.encrypt(PLAINTEXT)
            reader = reader.decrypt(open_ratchet(ciphertext.body)).record
        ends[:] = [writer, reader]

    ends = list(opened(with_spqr=with_spqr))
    return best_rate(count, work)


def there_and_back(*, with_spqr: bool, count: int = 300) -> float:
    """A message each way in turn, so that each turns the ratchet."""

    def work() -> None:
        one, other = ends
        for _ in range(count):
            one, ciphertext = one.encrypt(PLAINTEXT)
            other = other.decrypt(open_ratchet(ciphertext.body)).record
            other, ciphertext = other.encrypt(PLAINTEXT)
            one = one.decrypt(open_ratchet(ciphertext.body)).record
        ends[:] = [one, other]

    ends = list(opened(with_spqr=with_spqr))
    return best_rate(2 * count, work)


def group(count: int = 1000) -> tuple[float, float]:
    """Sends, and receives, with a sender key."""
    key = sender_keys.create(bytes(16))
    reader = SenderKeyReader().admit(sender_keys.open_distribution(key.distribution()))
    bodies: list[bytes] = []

    def send() -> None:
        nonlocal key
        for _ in range(count):
            key, ciphertext = key.encrypt(PLAINTEXT)
            bodies.append(ciphertext.body)

    def receive() -> None:
        nonlocal reader
        for _ in range(count):
            reader, _ = reader.decrypt(sender_keys.open_message(next(coming)))

    sends = best_rate(count, send)
    coming = iter(bodies)
    return sends, best_rate(count, receive)


def attachment(size: int = 64 * _MIB) -> tuple[float, float]:
    """MiB a second, sealed and opened."""
    plaintext, file = io.BytesIO(bytes(size)), io.BytesIO()
    key = seal(plaintext, file)

    def seal_again() -> None:
        plaintext.seek(0)
        seal(plaintext, nowhere)

    def open_again() -> None:
        file.seek(0)
        open_sealed(file, nowhere, key)

    with Path(os.devnull).open("wb") as nowhere:
        return best_rate(size // _MIB, seal_again), best_rate(size // _MIB, open_again)


def main() -> None:
    sends, receives = group()
    sealing, opening = attachment()
    for name, rate in (
        ("set-up, /s", set_up()),
        ("one way without SPQR, /s", one_way(with_spqr=False)),
        ("one way with SPQR, /s", one_way(with_spqr=True)),
        ("there and back without SPQR, /s", there_and_back(with_spqr=False)),
        ("there and back with SPQR, /s", there_and_back(with_spqr=True)),
        ("sender key sends, /s", sends),
        ("sender key receives, /s", receives),
        ("attachment sealed, MiB/s", sealing),
        ("attachment opened, MiB/s", opening),
    ):
        print(f"{name:32}{rate:10,.0f}")


if __name__ == "__main__":
    main()
