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
    ForgedAttachment,
    attachments,
    cbc,
    open_sealed,
    seal,
    sealed_length,
)


def sealed(plaintext: bytes) -> tuple[bytes, AttachmentKey]:
    sink = io.BytesIO()
    key = seal(io.BytesIO(plaintext), sink)
    return sink.getvalue(), key


def opened(file: bytes, key: AttachmentKey) -> bytes:
    sink = io.BytesIO()
    open_sealed(io.BytesIO(file), sink, key)
    return sink.getvalue()


@pytest.mark.parametrize(
    "size", [0, 1, 540, 541, 542, 65_535, 65_536, 65_537, 131_040, 131_072, 1_000_000]
)
def test_an_attachment_of_any_size_opens_again(size: int) -> None:
    plaintext = os.urandom(size)

    file, key = sealed(plaintext)

    assert opened(file, key) == plaintext
    assert len(file) == sealed_length(size)
    assert key.length == size


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


@settings(max_examples=60, deadline=None)
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
        def __init__(self, size: int) -> None:
            self.left = size

        def read(self, size: int = -1, /) -> bytes:
            count = min(size, self.left)
            self.left -= count
            return bytes(count)

    class Nothing(io.RawIOBase):
        def write(self, content: object, /) -> int:
            assert isinstance(content, bytes)
            return len(content)

    tracemalloc.start()
    seal(Zeros(64 << 20), Nothing())  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 << 20


def test_the_key_is_not_shown() -> None:
    _, key = sealed(b"content")

    assert repr(key.key) not in repr(key)
