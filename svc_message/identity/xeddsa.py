"""XEdDSA signatures and Curve25519 keys, as far as the server needs them: it signs nothing.

A public key is 33 bytes: the type byte 0x05 and the u-coordinate. Specification:
https://signal.org/docs/specifications/xeddsa/.
"""

from functools import lru_cache

import xeddsa

PUBLIC_KEY_BYTES = 33
SIGNATURE_BYTES = 64

_TYPE = 0x05
_SIGN_BIT = 0x80
_PRIME = 2**255 - 19
# The u-coordinates by which every agreement gives zero.
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _PRIME - 1,
    )
)


def is_public_key(public: bytes) -> bool:
    """Whether the bytes are a key, in its only form, with which an agreement is secret."""
    if len(public) != PUBLIC_KEY_BYTES or public[0] != _TYPE:
        return False
    u = int.from_bytes(public[1:], "little")
    return u < _PRIME and u not in _SMALL_ORDER


def verifies(public: bytes, content: bytes, signature: bytes) -> bool:
    """Whether the owner of the key signed the content."""
    if len(signature) != SIGNATURE_BYTES or not is_public_key(public):
        return False
    # Of the two Edwards keys of a Montgomery key XEdDSA takes one. Signal's signers tell the other
    # one's sign in the bit that Ed25519 leaves unused.
    last = signature[-1]
    edwards = _edwards(public, bool(last & _SIGN_BIT))
    plain = signature[:-1] + bytes((last & ~_SIGN_BIT,))
    return xeddsa.ed25519_verify(plain, edwards, content)


# One identity key signs a whole upload: its conversion costs a third of a verification.
@lru_cache(maxsize=1024)
def _edwards(public: bytes, negative: bool) -> bytes:  # noqa: FBT001 - the sign is the value
    return xeddsa.curve25519_pub_to_ed25519_pub(public[1:], set_sign_bit=negative)
