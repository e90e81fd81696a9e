"""Chunks of a sealed file, each proved and opened alone, so that a reader may begin anywhere.

A chunk is some whole blocks of the body with the block before them, which CBC needs to open them:
with chunks of `size` bytes of plaintext, chunk n is the sealed file from n * size on, and shares a
block with the next. What proves it is its SHA-256, which travels in the message beside the key; the
MAC and the digest over all of the file stay what they are.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from whimbrel_client.crypto.cbc import BLOCK
from whimbrel_client.crypto.derivation import same
from whimbrel_client.crypto.errors import ForgedAttachment

_CIPHER_KEY = 32
_DIGEST = 32
_SMALLEST = 256 * 1024
# A reader holds one; 2 GiB has chunks of half of it.
_LARGEST = 16 * 1024 * 1024
# What a message gives them: 8 KiB.
_MOST = 256


@dataclass(frozen=True, slots=True)
class Chunks:
    """What a message tells of a file's chunks. Raises ForgedAttachment if they cannot be."""

    length: int  # of the plaintext
    size: int
    digests: bytes  # 32 each, joined

    def __post_init__(self) -> None:
        if self.size % BLOCK or not _SMALLEST <= self.size <= _LARGEST:
            raise ForgedAttachment("no chunks have that size")
        if len(self.digests) != _DIGEST * _count(self.length, self.size):
            raise ForgedAttachment("there are not as many digests as chunks")

    def covering(self, first: int, end: int) -> range:
        """The numbers of the chunks that have the plaintext's bytes from `first` to `end`."""
        return range(first // self.size, _count(min(end, self.length), self.size))

    def sealed(self, number: int) -> tuple[int, int]:
        """Where in the sealed file a chunk begins and ends."""
        return number * self.size, _end(self.length, self.size, number)

    def open(self, key: bytes, number: int, chunk: bytes) -> bytes:
        """The plaintext of a chunk. Raises ForgedAttachment unless it is what was sealed."""
        at = number * _DIGEST
        if not same(hashlib.sha256(chunk).digest(), self.digests[at : at + _DIGEST]):
            raise ForgedAttachment("the chunk does not fit its digest")
        decryptor = Cipher(AES256(key[:_CIPHER_KEY]), CBC(chunk[:BLOCK])).decryptor()
        left = self.length - number * self.size
        return decryptor.update(memoryview(chunk)[BLOCK:])[:left]


class ChunkDigests:
    """Hears a sealed file of a known length from its begin on, and tells its chunks' digests."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._size = chunk_size(length)
        self._count = _count(length, self._size)
        self._at = 0
        self._before = b""  # the last bytes, a block at most
        self._running = hashlib.sha256()
        self._digests: list[bytes] = []

    def update(self, piece: bytes) -> None:
        """The next bytes."""
        left = memoryview(piece)
        while left and len(self._digests) < self._count:
            end = _end(self._length, self._size, len(self._digests))
            some, left = left[: end - self._at], left[end - self._at :]
            self._running.update(some)
            self._at += len(some)
            self._before = (self._before + bytes(some[-BLOCK:]))[-BLOCK:]
            if self._at == end:
                self._digests.append(self._running.digest())
                self._running = hashlib.sha256(self._before)

    def chunks(self) -> Chunks:
        """All of them, when the whole file was heard."""
        return Chunks(self._length, self._size, b"".join(self._digests))


def chunk_size(length: int) -> int:
    """How many bytes of a plaintext of this length a chunk has, when we seal it."""
    size = _SMALLEST
    while size < _LARGEST and _count(length, size) > _MOST:
        size *= 2
    return size


def _count(length: int, size: int) -> int:
    return -(-length // size)


def _end(length: int, size: int, number: int) -> int:
    plaintext = min((number + 1) * size, length)
    return BLOCK + -(-plaintext // BLOCK) * BLOCK
