"""Linking: what a new device shows, and the secret that the primary encrypts to it. No I/O.

Whoever reads the code on the new device's screen can hand it an account; nobody else can, and the
server learns neither the code nor the secret.
"""

import base64
import binascii
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from whimbrel.content.v1.link_pb2 import LinkSecret
from whimbrel_client.crypto import CryptoError, KeyPair, curve
from whimbrel_client.errors import LinkFailed

_SCHEME = "whimbrel:link/1/"
_ADDRESS_BYTES = 16
_NONCE_BYTES = 12
_VERSION = b"\x01"
_INFO = b"whimbrel link v1"


@dataclass(frozen=True, slots=True)
class LinkCode:
    """What the QR code says: where the new device waits, and the key to encrypt to."""

    address: bytes
    public_key: bytes

    def __str__(self) -> str:
        code = base64.urlsafe_b64encode(self.address + self.public_key)
        return _SCHEME + code.decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> "LinkCode":
        """Raises LinkFailed if the text is no such code."""
        code = text.strip().removeprefix(_SCHEME)
        try:
            both = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))
        except (ValueError, binascii.Error) as error:
            raise LinkFailed("this is no link code") from error
        if text.strip() == code or len(both) != _ADDRESS_BYTES + curve.PUBLIC_KEY_SIZE:
            raise LinkFailed("this is no link code")
        return cls(both[:_ADDRESS_BYTES], both[_ADDRESS_BYTES:])

    def seal(self, secret: LinkSecret) -> bytes:
        """Encrypt to the new device. Raises LinkFailed if its key is none."""
        ephemeral, nonce = curve.generate(), os.urandom(_NONCE_BYTES)
        try:
            agreed = curve.agree(ephemeral.private, self.public_key)
        except CryptoError as error:
            raise LinkFailed("the link code holds no key") from error
        key = _key(agreed, self.public_key, ephemeral.public)
        body = AESGCM(key).encrypt(nonce, secret.SerializeToString(), self.address)
        return _VERSION + ephemeral.public + nonce + body


@dataclass(frozen=True, slots=True)
class Invitation:
    """The new device's side: valid once."""

    address: bytes = field(default_factory=lambda: os.urandom(_ADDRESS_BYTES))
    pair: KeyPair = field(default_factory=curve.generate, repr=False)

    @property
    def code(self) -> LinkCode:
        """What is to be shown."""
        return LinkCode(self.address, self.pair.public)

    def open(self, sealed: bytes) -> LinkSecret:
        """Read what came. Raises LinkFailed: somebody who did not see the code sent it."""
        if sealed[:1] != _VERSION:
            raise LinkFailed("what came is of a version that is not spoken")
        start, end = len(_VERSION), len(_VERSION) + curve.PUBLIC_KEY_SIZE
        ephemeral, nonce = sealed[start:end], sealed[end : end + _NONCE_BYTES]
        try:
            key = _key(curve.agree(self.pair.private, ephemeral), self.pair.public, ephemeral)
            secret = AESGCM(key).decrypt(nonce, sealed[end + _NONCE_BYTES :], self.address)
            return LinkSecret.FromString(secret)
        except (CryptoError, InvalidTag, ValueError, DecodeError) as error:
            raise LinkFailed("what came was not written to this device") from error


def _key(agreed: bytes, new_device: bytes, ephemeral: bytes) -> bytes:
    salt = new_device + ephemeral
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=_INFO).derive(agreed)
