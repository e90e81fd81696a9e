"""Tokens at rest: AES-256-GCM under keys from a mounted file, each named so that they rotate."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from svc_push.model import Device, Provider

_KEY_BYTES = 32
_NONCE_BYTES = 12


class SealBroken(Exception):
    """What was stored is not what was sealed for this device, or its key is gone."""


@dataclass(frozen=True, slots=True)
class Seal:
    """The keys by id; the first one seals, all open."""

    keys: dict[str, AESGCM] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "Seal":
        """Read {"key id": "64 hexadecimal digits", ...}. Raises ValueError, OSError."""
        try:
            keys = {
                key_id: AESGCM(_key(digits))
                for key_id, digits in json.loads(path.read_bytes()).items()
            }
        except (AttributeError, TypeError, ValueError):
            keys = {}  # the cause may quote the file, so it is dropped
        if not keys:
            raise ValueError(f"{path} is not an object of keys of {_KEY_BYTES} bytes")
        return cls(keys)

    @property
    def key_id(self) -> str:
        """The key that seals."""
        return next(iter(self.keys))

    def seal(self, device: Device, provider: Provider, secret: bytes) -> bytes:
        """Encrypt for one device under `key_id`: copied to another's row it does not open."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self.keys[self.key_id].encrypt(nonce, secret, _bound_to(device, provider))

    def open(self, key_id: str, device: Device, provider: Provider, sealed: bytes) -> bytes:
        """Decrypt. Raises SealBroken."""
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self.keys[key_id].decrypt(nonce, ciphertext, _bound_to(device, provider))
        except (KeyError, ValueError, InvalidTag):
            raise SealBroken("a stored token does not open") from None


def _key(digits: str) -> bytes:
    key = bytes.fromhex(digits)
    if len(key) != _KEY_BYTES:
        raise ValueError("not a key")
    return key


def _bound_to(device: Device, provider: Provider) -> bytes:
    return device.user_id + bytes([device.device_id, provider])
