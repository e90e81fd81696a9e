"""Padding of plaintexts, so that a ciphertext's length tells little about its content."""

from whimbrel_client.crypto.errors import MalformedMessage

STEP = 80
_END = b"\x80"


def pad(plaintext: bytes) -> bytes:
    """Pad to a multiple of 80 less one: the cipher's own padding then fills the step."""
    room = -(len(plaintext) + 2) % STEP
    return plaintext + _END + bytes(room)


def unpad(padded: bytes) -> bytes:
    """Take the padding off; raises MalformedMessage."""
    plaintext, end, rest = padded.rpartition(_END)
    if not end or rest.strip(b"\x00"):
        raise MalformedMessage("the plaintext is not padded")
    return plaintext
