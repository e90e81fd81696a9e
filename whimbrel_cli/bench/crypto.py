"""How fast the protocol core is: CPU time on one core, the best of some tries.

It needs no mesh. The bench runs it in a process of its own, whose memory nothing else has touched;
`python -m whimbrel_cli.bench.crypto` prints the figures as JSON.
"""

import asyncio
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from whimbrel_cli.stack.errors import StackError
from whimbrel_client.crypto import (
    AttachmentKey,
    AttachmentOpener,
    Bundle,
    Device,
    PrivatePrekeys,
    PublicPrekey,
    SenderKeyReader,
    SessionRecord,
    curve,
    kem_prekey,
    one_time_prekey,
    open_prekey,
    open_ratchet,
    plan_of,
    sender_keys,
    signed_prekey,
)

_TRIES = 5
_MIB = 1 << 20
_DOWNLOADED = 64 << 10  # what the HTTP library reads at once
_PLAINTEXT = bytes(200)
_SMALL_FILE, _LARGE_FILE = 16 * _MIB, 256 * _MIB

Ends = tuple[SessionRecord, SessionRecord]


def figures(*, share: float = 1.0) -> Mapping[str, float]:
    """All figures; `share`: of the work that makes them steady, less for a first look."""

    def count(full: int) -> int:
        return max(1, round(full * share))

    # First: what has peaked once hides all that peaks lower.
    growth = _attachment_growth_kib(count(_SMALL_FILE), count(_LARGE_FILE))
    sends, receives = _group(count(1000))
    sealed, opened = _attachments(count(64))
    return {
        "set_ups_per_s": _set_ups(count(300)),
        "one_way_per_s": _one_way(count(3000), with_spqr=False),
        "one_way_spqr_per_s": _one_way(count(3000), with_spqr=True),
        "turns_per_s": _turns(count(300), with_spqr=False),
        "turns_spqr_per_s": _turns(count(300), with_spqr=True),
        "sender_key_sends_per_s": sends,
        "sender_key_receives_per_s": receives,
        "sealed_mib_per_s": sealed,
        "opened_mib_per_s": opened,
        "attachment_growth_kib": growth,
    }


async def measured() -> Mapping[str, float]:
    """The figures, from a process of their own. Raises StackError if it fails."""
    measuring = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await measuring.communicate()
    if measuring.returncode:
        raise StackError(f"the measuring process ended with {measuring.returncode}")
    result: Mapping[str, float] = json.loads(out)
    return result


def _rate(count: int, work: Callable[[], object]) -> float:
    best = 0.0
    for _ in range(_TRIES):
        started = time.process_time()
        work()
        best = max(best, count / (time.process_time() - started))
    return best


class _Pair:
    """Two devices, and the prekeys of the one that is written to."""

    def __init__(self) -> None:
        self.alice, self.bob = Device(curve.generate(), 1), Device(curve.generate(), 2)
        signed, kem = signed_prekey(1, self.bob.identity), kem_prekey(2, self.bob.identity)
        self.own = PrivatePrekeys(signed, kem, one_time_prekey(3))
        assert self.own.one_time is not None  # noqa: S101  # just made
        self.bundle = Bundle(
            self.bob.identity.public,
            2,
            PublicPrekey(1, signed.pair.public, signed.signature),
            PublicPrekey(2, kem.pair.public, kem.signature),
            (3, self.own.one_time.pair.public),
        )

    def set_up(self, *, with_spqr: bool = True) -> Ends:
        """From the bundle to the first message read."""
        writer = SessionRecord().opened(self.alice, self.bundle, with_spqr=with_spqr)
        writer, first = writer.encrypt(_PLAINTEXT)
        message = open_prekey(first.body)
        reader = SessionRecord().decrypt_first(message, self.bob, self.own, require_spqr=with_spqr)
        return writer, reader.record


def _set_ups(count: int) -> float:
    pair = _Pair()

    def work() -> None:
        for _ in range(count):
            pair.set_up()

    return _rate(count, work)


def _passed(ends: Ends) -> Ends:
    """The two ends after a message from the first to the second."""
    writer, reader = ends
    writer, ciphertext = writer.encrypt(_PLAINTEXT)
    return writer, reader.decrypt(open_ratchet(ciphertext.body)).record


def _turned(ends: Ends) -> Ends:
    """The two ends after a message each way, each of which turns the ratchet."""
    there, here = _passed(ends)
    here, there = _passed((here, there))
    return there, here


def _one_way(count: int, *, with_spqr: bool) -> float:
    ends = _turned(_answered(with_spqr=with_spqr))

    def work() -> None:
        nonlocal ends
        for _ in range(count):
            ends = _passed(ends)

    return _rate(count, work)


def _turns(count: int, *, with_spqr: bool) -> float:
    ends = _answered(with_spqr=with_spqr)

    def work() -> None:
        nonlocal ends
        for _ in range(count):
            ends = _turned(ends)

    return _rate(2 * count, work)


def _answered(*, with_spqr: bool) -> Ends:
    """A session whose first message was answered, so that it carries no prekeys any more."""
    alice, bob = _Pair().set_up(with_spqr=with_spqr)
    bob, alice = _passed((bob, alice))
    return alice, bob


def _group(count: int) -> tuple[float, float]:
    key = sender_keys.create(bytes(sender_keys.DISTRIBUTION_ID_SIZE))
    reader = SenderKeyReader().admit(sender_keys.open_distribution(key.distribution()))
    bodies: list[bytes] = []

    def send() -> None:
        nonlocal key
        for _ in range(count):
            key, ciphertext = key.encrypt(_PLAINTEXT)
            bodies.append(ciphertext.body)

    def receive() -> None:
        nonlocal reader
        for _ in range(count):
            reader, _ = reader.decrypt(sender_keys.open_message(next(coming)))

    sends = _rate(count, send)
    coming = iter(bodies)
    return sends, _rate(count, receive)


def _attachments(mib: int) -> tuple[float, float]:
    plaintext, file = io.BytesIO(bytes(mib * _MIB)), io.BytesIO()
    key = _seal(plaintext, file)

    def seal_again() -> None:
        _seal(plaintext, nowhere)

    def open_again() -> None:
        file.seek(0)
        _open(file, nowhere, key)

    with Path(os.devnull).open("wb") as nowhere:
        return _rate(mib, seal_again), _rate(mib, open_again)


def _seal(source: BinaryIO, sink: BinaryIO) -> AttachmentKey:
    """Both passes, as the SDK makes them."""
    plan = plan_of(source, part_size=_SMALL_FILE)
    for number in range(len(plan.part_digests)):
        sink.writelines(plan.read(source, number))
    return plan.key


def _open(source: BinaryIO, sink: BinaryIO, key: AttachmentKey) -> None:
    """In pieces of the size that a download has."""
    opener = AttachmentOpener(key)
    while piece := source.read(_DOWNLOADED):
        sink.write(opener.update(piece))
    opener.finish()


def _attachment_growth_kib(small: int, large: int) -> float:
    """By how much a large file raises the peak of memory above that of a small one."""
    with tempfile.TemporaryDirectory(prefix="whimbrel-bench-") as directory:
        before = _peak_kib(Path(directory), small)
        return _peak_kib(Path(directory), large) - before


def _peak_kib(directory: Path, size: int) -> float:
    plain, sealed = directory / "plain", directory / "sealed"
    with plain.open("wb") as file:
        file.truncate(size)
    with plain.open("rb") as source, sealed.open("wb") as sink:
        key = _seal(source, sink)
    with sealed.open("rb") as source, Path(os.devnull).open("wb") as sink:
        _open(source, sink, key)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(figures()))
