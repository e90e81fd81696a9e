"""Attachments: what is sealed opens again, and nothing else does."""

import dataclasses
import hashlib
import hmac
import io
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whimbrel_client.crypto import (
    AttachmentKey,
    AttachmentOpener,
    ForgedAttachment,
    attachments,
    cbc,
    plan_of,
    sealed_length,
)

PART = 64 * 1024


def sealed(plaintext: bytes, part_size: int = PART) -> tuple[bytes, AttachmentKey]:
    source = io.BytesIO(plaintext)
    plan = plan_of(source, part_size=part_size)
    parts = [b"".join(plan.read(source, number)) for number in range(len(plan.part_digests))]
    assert [hashlib.sha256(part).digest() for part in parts] == plan.part_digests
    return b"".join(parts), plan.key


def opened(file: bytes, key: AttachmentKey, piece: int = 10_007) -> bytes:
    opener = AttachmentOpener(key)
    pieces = [file[at : at + piece] for at in range(0, len(file), piece)]
    plaintext = b"".join(map(opener.update, pieces))
    opener.finish()
    return plaintext


@pytest.mark.parametrize(
    "size", [0, 1, 540, 541, 542, 65_535, 65_536, 65_537, 131_040, 131_072, 1_000_000]
)
def test_an_attachment_of_any_size_opens_again(size: int) -> None:
    plaintext = os.urandom(size)

    file, key = sealed(plaintext)

    assert opened(file, key) == plaintext
    assert len(file) == sealed_length(size)
    assert key.length == size


@pytest.mark.parametrize("part_size", [16, 32, 48, 64, 592, 608])
@pytest.mark.parametrize("piece", [1, 15, 17, 1000])
def test_parts_and_pieces_of_any_size_are_the_same_file(part_size: int, piece: int) -> None:
    plaintext = os.urandom(500)

    file, key = sealed(plaintext, part_size)

    assert len(file) == sealed_length(500)
    assert opened(file, key, piece) == plaintext


def test_a_part_is_made_again_alone_and_a_changed_source_shows() -> None:
    source = io.BytesIO(os.urandom(3 * PART))
    plan = plan_of(source, part_size=PART)

    again = b"".join(plan.read(source, 1))
    source.seek(PART + 100)
    source.write(b"other")
    changed = b"".join(plan.read(source, 1))
    source.truncate(PART + 50)
    cut = b"".join(plan.read(source, 1))

    digests = [hashlib.sha256(part).digest() for part in (again, changed, cut)]
    assert digests[0] == plan.part_digests[1]
    assert plan.part_digests[1] not in digests[1:]
    assert {len(part) for part in (again, changed, cut)} == {PART}


def test_the_layout_is_signals() -> None:
    file, key = sealed(b"content")
    cipher_key, mac_key = key.key[:32], key.key[32:]
    iv, body, tag = file[:16], file[16:-32], file[-32:]

    assert cbc.decrypt(cipher_key, iv, body) == b"content" + bytes(541 - len(b"content"))
    assert hmac.digest(mac_key, iv + body, "sha256") == tag
    assert hashlib.sha256(file).digest() == key.digest


@given(st.integers(0, 1 << 40))
def test_sizes_are_few_and_never_below_the_plaintext(length: int) -> None:
    padded = attachments.padded_length(length)

    assert max(length, 541) <= padded <= max(length * 1.06, 541)
    assert attachments.padded_length(padded) <= padded * 1.06


@settings(max_examples=60)
@given(place=st.integers(0, 700), bit=st.integers(0, 7))
def test_an_attachment_with_any_bit_flipped_is_refused(place: int, bit: int) -> None:
    file, key = sealed(b"content")
    forged = bytearray(file)
    forged[place % len(file)] ^= 1 << bit

    with pytest.raises(ForgedAttachment):
        opened(bytes(forged), key)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 47, 48, 100, -32, -1])
def test_a_cut_attachment_is_refused(size: int) -> None:
    file, key = sealed(b"content")

    with pytest.raises(ForgedAttachment):
        opened(file[:size], key)


def test_another_key_digest_or_length_is_refused() -> None:
    file, key = sealed(b"content")

    for wrong in (
        dataclasses.replace(key, key=bytes(64)),
        dataclasses.replace(key, key=key.key[:63]),
        dataclasses.replace(key, digest=bytes(32)),
        dataclasses.replace(key, length=10_000),
    ):
        with pytest.raises(ForgedAttachment):
            opened(file, wrong)


def test_a_large_attachment_is_sealed_and_opened_in_constant_memory() -> None:
    class Zeros(io.RawIOBase):
        at = 0

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.at = offset + (whence and (64 << 20))
            return self.at

        def read(self, size: int = -1, /) -> bytes:
            self.at += size
            return bytes(size)

    source, sizes = Zeros(), []
    tracemalloc.start()
    plan = plan_of(source, part_size=16 << 20)  # type: ignore[arg-type]
    opener = AttachmentOpener(plan.key)
    for number in range(len(plan.part_digests)):
        sizes += [len(opener.update(piece)) for piece in plan.read(source, number)]  # type: ignore[arg-type]
    opener.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert sum(sizes) == 64 << 20
    assert peak < 2 << 20


def test_the_key_is_not_shown() -> None:
    _, key = sealed(b"content")

    assert repr(key.key) not in repr(key)
