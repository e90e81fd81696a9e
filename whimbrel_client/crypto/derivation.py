"""HMAC-SHA-256 and HKDF-SHA-256 (RFC 5869), as every part of the protocol uses them."""

import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SHA256 = SHA256()
_MESSAGE_SEED = b"\x01"
_NEXT_CHAIN = b"\x02"


def mac(key: bytes, content: bytes) -> bytes:
    """HMAC-SHA-256."""
    return hmac.digest(key, content, "sha256")


def chain_step(key: bytes) -> tuple[bytes, bytes]:
    """The seed of one message's keys, and the chain key after it (Double Ratchet, section 5.2)."""
    seed = HMAC(key, _SHA256)
    following = seed.copy()  # the key goes into the hash once for both
    seed.update(_MESSAGE_SEED)
    following.update(_NEXT_CHAIN)
    return seed.finalize(), following.finalize()


def derive(secret: bytes, length: int, *, info: bytes, salt: bytes | None = None) -> bytes:
    """HKDF-SHA-256; no salt is the same as 32 zero bytes."""
    return HKDF(_SHA256, length, salt, info).derive(secret)


def same(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)
