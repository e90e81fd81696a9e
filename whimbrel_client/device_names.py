"""The names of devices: written by one device of an account, read by all, and by nobody else.

A name is sealed under a key that only whoever has the account's identity key can derive, padded to
one length, and bound to the registration of the device that it names.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from whimbrel_client.crypto import KeyPair
from whimbrel_client.errors import NameTooLong

MOST_BYTES = 128

_VERSION = b"\x01"
_NONCE_BYTES = 12
_INFO = b"whimbrel device name v1"


def seal_name(name: str, identity: KeyPair, registration_id: int) -> bytes:
    """Nothing for no name. Raises NameTooLong."""
    said = name.encode()
    if not said:
        return b""
    if len(said) > MOST_BYTES:
        raise NameTooLong(f"a device's name has at most {MOST_BYTES} bytes")
    nonce = os.urandom(_NONCE_BYTES)
    padded = said.ljust(MOST_BYTES, b"\0")
    return _VERSION + nonce + _cipher(identity).encrypt(nonce, padded, _bound(registration_id))


def open_name(sealed: bytes, identity: KeyPair, registration_id: int) -> str:
    """Empty if there is none, or none that an own device gave to this registration."""
    if sealed[:1] != _VERSION:
        return ""
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        padded = _cipher(identity).decrypt(nonce, body, _bound(registration_id))
        return padded.rstrip(b"\0").decode()
    except (InvalidTag, ValueError):
        return ""


def _cipher(identity: KeyPair) -> AESGCM:
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO)
    return AESGCM(hkdf.derive(identity.private))


def _bound(registration_id: int) -> bytes:
    return registration_id.to_bytes(4, "big")
