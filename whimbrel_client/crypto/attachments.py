"""Attachments in Signal's layout, piece by piece: IV, AES-256-CBC, HMAC-SHA-256 over both.

A key is random and used once. The plaintext is filled with zeros to one of few sizes; its true
length, the key and the SHA-256 digest of the whole file travel in the message.

Sealing goes twice over the plaintext: `plan_of` finds out the digests, `AttachmentPlan.read` makes
the bytes, any part of them, as often as it takes to bring them away.
"""

import hashlib
import hmac
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from whimbrel_client.crypto import cbc, randomness
from whimbrel_client.crypto.attachment_chunks import ChunkDigests, Chunks
from whimbrel_client.crypto.derivation import same
from whimbrel_client.crypto.errors import ForgedAttachment

KEY_SIZE = 64
# Below what malloc maps anew for each allocation: its page faults cost more than the cipher.
PIECE_SIZE = 64 * 1024
_TAG_SIZE = 32
_SMALLEST = 541
_STEP = 1.05

OnProgress = Callable[[int], None]  # hears how many bytes more are done


@dataclass(frozen=True, slots=True)
class AttachmentKey:
    """What a message tells of an attachment, so that its receiver can open it."""

    key: bytes = field(repr=False)
    digest: bytes
    length: int


@dataclass(frozen=True, slots=True)
class AttachmentPlan:
    """What the first pass found out about a file; it holds the key."""

    key: AttachmentKey
    iv: bytes = field(repr=False)
    tag: bytes = field(repr=False)
    part_size: int  # a multiple of a cipher's block
    part_digests: list[bytes]  # SHA-256 of each part of the sealed file
    # The block before each part, from which its encryption goes on.
    chains: list[bytes] = field(repr=False)
    chunks: Chunks | None = None  # none in a plan that was kept by an SDK that knew of none

    @property
    def size(self) -> int:
        """Of the sealed file."""
        return sealed_length(self.key.length)

    def read(self, source: BinaryIO, number: int) -> Iterator[bytes]:
        """The bytes of the sealed file's part `number`, from 0, in pieces.

        A source that has changed since the first pass gives bytes that do not fit the digests.
        """
        chain = self.chains[number]
        part = _Part(self.key.length, number * self.part_size, self.part_size)
        return part.sealed(source, self.key.key, self.iv, chain, lambda: self.tag)


def padded_length(length: int) -> int:
    """Return the size that a plaintext is filled to: powers of 1.05, at least 541."""
    if length <= _SMALLEST:
        return _SMALLEST
    # Rounding may end just below the length itself.
    return max(length, math.floor(_STEP ** math.ceil(math.log(length, _STEP))))


def sealed_length(length: int) -> int:
    """Return the size of the file that a plaintext of this length becomes."""
    return cbc.BLOCK + cbc.padded_size(padded_length(length)) + _TAG_SIZE


def plan_of(
    source: BinaryIO, *, part_size: int, on_progress: OnProgress = lambda _done: None
) -> AttachmentPlan:
    """Go over all of the source once, in constant memory; the key and the IV are drawn here."""
    key, iv = randomness.draw(KEY_SIZE), randomness.draw(cbc.BLOCK)
    length = source.seek(0, os.SEEK_END)
    covered, chunks = _Covered(key), ChunkDigests(length)
    digests, chains, chain = [], [], iv
    for offset in range(0, sealed_length(length), part_size):
        digest = hashlib.sha256()
        chains.append(chain)
        part = _Part(length, offset, part_size)
        for piece in part.sealed(source, key, iv, chain, covered.tag):
            covered.update(piece)
            digest.update(piece)
            chunks.update(piece)
            chain = piece[-cbc.BLOCK :]
            on_progress(len(piece))
        digests.append(digest.digest())
    attachment = AttachmentKey(key, covered.digest(), length)
    return AttachmentPlan(
        attachment, iv, covered.tag(), part_size, digests, chains, chunks.chunks()
    )


class AttachmentOpener:
    """Decrypts a sealed file as its bytes come, in constant memory.

    What comes out is proved only when `finish` returns: let it go to a temporary file, and throw
    that away if anything raises ForgedAttachment. Pieces of PIECE_SIZE open the fastest.
    """

    def __init__(self, key: AttachmentKey) -> None:
        if len(key.key) != KEY_SIZE:
            raise ForgedAttachment("the attachment's key is cut")
        self._key = key
        self._covered = _Covered(key.key)
        self._decryptor: CipherContext | None = None
        self._wanted = key.length
        self._held = b""

    def update(self, piece: bytes) -> bytes:
        """The plaintext that these bytes complete."""
        # The last bytes may be the tag, so they are held back until more come.
        body, self._held = _split_tag(self._held + piece)
        if self._decryptor is None:
            if len(body) < cbc.BLOCK:
                self._held = body + self._held
                return b""
            iv, body = body[: cbc.BLOCK], body[cbc.BLOCK :]
            self._covered.update(iv)
            self._decryptor = Cipher(AES256(self._key.key[:32]), CBC(iv)).decryptor()
        self._covered.update(body)
        plaintext = self._decryptor.update(body)[: self._wanted]
        self._wanted -= len(plaintext)
        return plaintext

    def finish(self) -> None:
        """There are no more bytes. Raises ForgedAttachment unless they are what was sealed."""
        tag = self._covered.tag()
        if self._decryptor is None or not same(tag, self._held):
            raise ForgedAttachment("the MAC does not fit")
        self._covered.update(tag)
        if not same(self._covered.digest(), self._key.digest):
            raise ForgedAttachment("the digest does not fit")
        if self._wanted:
            raise ForgedAttachment("the attachment is shorter than the message says")


@dataclass(frozen=True, slots=True)
class _Part:
    """Some consecutive bytes of a sealed file: of the IV, the body and the tag."""

    length: int  # of the plaintext
    offset: int
    size: int

    def sealed(
        self, source: BinaryIO, key: bytes, iv: bytes, chain: bytes, tag: Callable[[], bytes]
    ) -> Iterator[bytes]:
        end, body_size = self.offset + self.size, cbc.padded_size(padded_length(self.length))
        if not self.offset:
            yield iv
        encryptor = Cipher(AES256(key[:32]), CBC(chain)).encryptor()
        first, last = max(self.offset - cbc.BLOCK, 0), min(end - cbc.BLOCK, body_size)
        for piece in _padded(source, self.length, first, last):
            yield encryptor.update(piece)
        tag_at = cbc.BLOCK + body_size
        if end > tag_at:
            yield tag()[max(self.offset - tag_at, 0) : end - tag_at]


class _Covered:
    """What the MAC and the digest have seen so far; the MAC sees nothing after its tag."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key[32:], digestmod="sha256")
        self._digest = hashlib.sha256()
        self._tag = b""

    def update(self, piece: bytes) -> None:
        self._mac.update(piece)
        self._digest.update(piece)

    def tag(self) -> bytes:
        self._tag = self._tag or self._mac.digest()
        return self._tag

    def digest(self) -> bytes:
        return self._digest.digest()


def _padded(source: BinaryIO, length: int, first: int, last: int) -> Iterator[bytes]:
    """The bytes `first` to `last` of the plaintext, then zeros, then the cipher's padding."""
    source.seek(min(first, length))
    while first < min(last, length):
        size = min(PIECE_SIZE, last - first, length - first)
        yield source.read(size).ljust(size, b"\0")
        first += size
    padded = padded_length(length)
    while first < min(last, padded):
        size = min(PIECE_SIZE, last - first, padded - first)
        yield bytes(size)
        first += size
    if first < last:
        yield cbc.padding_after(padded)[: last - first]


def _split_tag(piece: bytes) -> tuple[bytes, bytes]:
    return piece[:-_TAG_SIZE], piece[-_TAG_SIZE:]
