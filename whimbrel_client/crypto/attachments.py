"""Attachments in Signal's layout, piece by piece: IV, AES-256-CBC, HMAC-SHA-256 over both.

A key is random and used once. The plaintext is filled with zeros to one of few sizes; its true
length, the key and the SHA-256 digest of the whole file travel in the message.
"""

import hashlib
import hmac
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC

from whimbrel_client.crypto import cbc, randomness
from whimbrel_client.crypto.derivation import same
from whimbrel_client.crypto.errors import ForgedAttachment

KEY_SIZE = 64
PIECE_SIZE = 64 * 1024
_TAG_SIZE = 32
_SMALLEST = 541
_STEP = 1.05


@dataclass(frozen=True, slots=True)
class AttachmentKey:
    """What a message tells of an attachment, so that its receiver can open it."""

    key: bytes = field(repr=False)
    digest: bytes
    length: int


def padded_length(length: int) -> int:
    """Return the size that a plaintext is filled to: powers of 1.05, at least 541."""
    if length <= _SMALLEST:
        return _SMALLEST
    # Rounding may end just below the length itself.
    return max(length, math.floor(_STEP ** math.ceil(math.log(length, _STEP))))


def sealed_length(length: int) -> int:
    """Return the size of the file that a plaintext of this length becomes."""
    return cbc.BLOCK + cbc.padded_size(padded_length(length)) + _TAG_SIZE


def seal(source: BinaryIO, sink: BinaryIO) -> AttachmentKey:
    """Encrypt all of the source into the sink, in constant memory."""
    key, iv = randomness.draw(KEY_SIZE), randomness.draw(cbc.BLOCK)
    encryptor = Cipher(AES256(key[:32]), CBC(iv)).encryptor()
    covered = _Covered(key)
    sink.write(covered.update(iv))
    length = 0
    while piece := source.read(PIECE_SIZE):
        length += len(piece)
        sink.write(covered.update(encryptor.update(piece)))
    zeros = _zeros(padded_length(length) - length)
    sink.writelines(covered.update(encryptor.update(piece)) for piece in zeros)
    last = cbc.padding_after(padded_length(length))
    sink.write(covered.update(encryptor.update(last) + encryptor.finalize()))
    tag = covered.tag()
    sink.write(tag)
    return AttachmentKey(key, covered.digest_with(tag), length)


def open_sealed(source: BinaryIO, sink: BinaryIO, key: AttachmentKey) -> None:
    """Decrypt all of the source into the sink, in constant memory; raises ForgedAttachment.

    What is in the sink is proved only when this returns: let it be a temporary file, and throw it
    away if this raises.
    """
    covered = _Covered(key.key)
    iv = source.read(cbc.BLOCK)
    covered.update(iv)
    if len(iv) != cbc.BLOCK or len(key.key) != KEY_SIZE:
        raise ForgedAttachment("the attachment or its key is cut")
    decryptor = Cipher(AES256(key.key[:32]), CBC(iv)).decryptor()
    wanted, held = key.length, b""
    while piece := source.read(PIECE_SIZE):
        # The last bytes may be the tag, so they are held back until more come.
        body, held = _split_tag(held + piece)
        plaintext = decryptor.update(covered.update(body))[:wanted]
        sink.write(plaintext)
        wanted -= len(plaintext)
    if len(held) != _TAG_SIZE or not same(covered.tag(), held):
        raise ForgedAttachment("the MAC does not fit")
    if not same(covered.digest_with(held), key.digest):
        raise ForgedAttachment("the digest does not fit")
    if wanted:
        raise ForgedAttachment("the attachment is shorter than the message says")


class _Covered:
    """What the MAC and the digest have seen so far."""

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key[32:], digestmod="sha256")
        self._digest = hashlib.sha256()

    def update(self, piece: bytes) -> bytes:
        self._mac.update(piece)
        self._digest.update(piece)
        return piece

    def tag(self) -> bytes:
        return self._mac.digest()

    def digest_with(self, tag: bytes) -> bytes:
        whole = self._digest.copy()
        whole.update(tag)
        return whole.digest()


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, PIECE_SIZE))
        count -= PIECE_SIZE


def _split_tag(piece: bytes) -> tuple[bytes, bytes]:
    return piece[:-_TAG_SIZE], piece[-_TAG_SIZE:]
