"""A group's name and the like, as only its members can read them."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from whimbrel.content.v1.group_pb2 import GroupAttributes

KEY_BYTES = 32

_VERSION = b"\x01"
_NONCE_BYTES = 12
_LABEL = b"whimbrel group v1"


def new_key() -> bytes:
    """A key for the attributes of one group."""
    return os.urandom(KEY_BYTES)


def seal(attributes: GroupAttributes, key: bytes) -> bytes:
    """Encrypt them for the members."""
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, attributes.SerializeToString(), _LABEL)


def unseal(sealed: bytes, key: bytes) -> GroupAttributes | None:
    """None if the key does not open them."""
    if sealed[:1] != _VERSION or len(key) != KEY_BYTES:
        return None
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return GroupAttributes.FromString(AESGCM(key).decrypt(nonce, body, _LABEL))
    except (InvalidTag, ValueError, DecodeError):
        return None
