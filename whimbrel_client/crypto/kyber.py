"""Kyber-1024 of round 3, as PQXDH uses it, made of the ML-KEM-1024 of FIPS 203.

The two share keys and ciphertexts and differ only in how the shared secret is derived at the end:
round 3 hashes ML-KEM's secret once more, together with the ciphertext's hash. A key and a
ciphertext are 0x08 and 1,568 bytes; a private key is kept as its 64-byte seed.
"""

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey, MLKEM1024PublicKey

from whimbrel_client.crypto import randomness
from whimbrel_client.crypto.errors import InvalidKey

PUBLIC_KEY_SIZE = 1569
CIPHERTEXT_SIZE = 1569
_SEED_SIZE = 64
_TYPE = b"\x08"


@dataclass(frozen=True, slots=True)
class KemKeyPair:
    """A KEM key and the seed that makes its private part."""

    public: bytes
    seed: bytes = field(repr=False)


def generate() -> KemKeyPair:
    """Make a new pair."""
    seed = randomness.draw(_SEED_SIZE)
    public = MLKEM1024PrivateKey.from_seed_bytes(seed).public_key()
    return KemKeyPair(_TYPE + public.public_bytes_raw(), seed)


def checked(public: bytes) -> bytes:
    """Return a KEM key that came from outside, or raise InvalidKey."""
    if len(public) != PUBLIC_KEY_SIZE or public[:1] != _TYPE:
        raise InvalidKey("not a Kyber-1024 public key")
    return public


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Return a new secret and the ciphertext that brings it to the key's owner."""
    try:
        key = MLKEM1024PublicKey.from_public_bytes(checked(public)[1:])
    except ValueError as error:
        raise InvalidKey("not a Kyber-1024 public key") from error
    secret, ciphertext = key.encapsulate()
    return _round_3(secret, ciphertext), _TYPE + ciphertext


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """Return the secret; a ciphertext that is not for this key gives a random one."""
    if len(ciphertext) != CIPHERTEXT_SIZE or ciphertext[:1] != _TYPE:
        raise InvalidKey("not a Kyber-1024 ciphertext")
    secret = MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext[1:])
    return _round_3(secret, ciphertext[1:])


def _round_3(secret: bytes, ciphertext: bytes) -> bytes:
    return hashlib.shake_256(secret + hashlib.sha3_256(ciphertext).digest()).digest(32)
