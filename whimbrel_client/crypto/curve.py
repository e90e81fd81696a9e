"""Curve25519 keys: agreement by X25519 (RFC 7748), signatures by XEdDSA (Signal's specification).

A public key is 33 bytes everywhere outside this module: the type byte 0x05 and the u-coordinate.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

import xeddsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from whimbrel_client.crypto import randomness
from whimbrel_client.crypto.errors import InvalidKey, InvalidSignature

PUBLIC_KEY_SIZE = 33
PRIVATE_KEY_SIZE = 32
SIGNATURE_SIZE = 64
_TYPE = b"\x05"
_NONCE_SIZE = 64
_SIGN_BIT = 0x80


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key and its public key; only the public one is ever shown."""

    public: bytes
    private: bytes = field(repr=False)


def generate() -> KeyPair:
    """Make a new pair."""
    return pair_of(randomness.draw(PRIVATE_KEY_SIZE))


def pair_of(private: bytes) -> KeyPair:
    """Rebuild a pair from its 32 private bytes."""
    public = X25519PrivateKey.from_private_bytes(private).public_key()
    return KeyPair(_TYPE + public.public_bytes_raw(), private)


def checked(public: bytes) -> bytes:
    """Return a public key that came from outside, or raise InvalidKey."""
    if len(public) != PUBLIC_KEY_SIZE or public[:1] != _TYPE:
        raise InvalidKey("not a Curve25519 public key")
    return public


def agree(private: bytes, public: bytes) -> bytes:
    """X25519; a public key of small order is refused."""
    try:
        return xeddsa.x25519(private, checked(public)[1:])
    except xeddsa.XEdDSAException as error:
        raise InvalidKey("a public key of small order") from error


def sign(private: bytes, content: bytes) -> bytes:
    """XEdDSA, 64 bytes, with the key that also agrees."""
    scalar = xeddsa.priv_force_sign(private, set_sign_bit=False)
    return xeddsa.ed25519_priv_sign(scalar, content, randomness.draw(_NONCE_SIZE))


def generate_for_signing() -> tuple[bytes, bytes]:
    """Make a seed for `sign_with_seed` and its public key, whose signatures `verify` knows."""
    while True:
        seed = randomness.draw(PRIVATE_KEY_SIZE)
        edwards = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        # XEdDSA shows only one coordinate of a point, and takes the other's sign to be 0.
        if not edwards[-1] & _SIGN_BIT:
            scalar = hashlib.sha512(seed).digest()[:PRIVATE_KEY_SIZE]
            return seed, pair_of(scalar).public


def sign_with_seed(seed: bytes, content: bytes) -> bytes:
    """Ed25519 (RFC 8032), for a key that only signs: a third of the time of XEdDSA."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(content)


def verify(public: bytes, content: bytes, signature: bytes) -> None:
    """Raise InvalidSignature unless the owner of the key signed the content."""
    if len(signature) != SIGNATURE_SIZE:
        raise InvalidSignature("a signature has 64 bytes")
    # XEdDSA knows only one of the two Edwards keys of a Montgomery key. Signal's signers tell the
    # other one's sign in the bit that Ed25519 leaves unused.
    last = signature[-1]
    edwards = _edwards(checked(public), bool(last & _SIGN_BIT))
    plain = signature[:-1] + bytes((last & ~_SIGN_BIT,))
    if not xeddsa.ed25519_verify(plain, edwards, content):
        raise InvalidSignature("the signature does not fit")


# The same few keys sign everything: their conversion costs a third of a verification.
@lru_cache(maxsize=4096)
def _edwards(public: bytes, negative: bool) -> bytes:  # noqa: FBT001 - the sign is the value
    return xeddsa.curve25519_pub_to_ed25519_pub(public[1:], set_sign_bit=negative)
