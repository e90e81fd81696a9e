"""The key of a channel: what it seals, the link that carries it, and how own devices get it.

32 random bytes, which the mesh never sees. From them HKDF-SHA-256 derives a key for posts, one for
attributes, and one that the mesh checks when somebody subscribes. Everything is AES-256-GCM under a
random nonce, which comes first.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from whimbrel_client.channels.errors import ChannelLinkInvalid
from whimbrel_client.crypto import KeyPair
from whimbrel_client.crypto.derivation import derive
from whimbrel_client.crypto.errors import MalformedMessage
from whimbrel_client.crypto.padding import pad, unpad
from whimbrel_client.ids import id_of, id_text

_BYTES = 32
_NONCE_BYTES = 12
_PREFIX = "whimbrel://channel/"
_SEALED_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """One key of one channel."""

    channel_id: bytes
    key: bytes = field(repr=False)

    @classmethod
    def new(cls, channel_id: bytes) -> "ChannelKey":
        """A fresh one."""
        return cls(channel_id, os.urandom(_BYTES))

    @classmethod
    def of_link(cls, link: str) -> "ChannelKey":
        """The one that a link carries. Raises ChannelLinkInvalid."""
        named, _, encoded = link.strip().removeprefix(_PREFIX).partition("#")
        try:
            channel_id = id_of(named)
            key = base64.b64decode(encoded + "=", altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise ChannelLinkInvalid("this is no link of a channel") from None
        if not link.strip().startswith(_PREFIX) or len(key) != _BYTES:
            raise ChannelLinkInvalid("this is no link of a channel")
        return cls(channel_id, key)

    @property
    def link(self) -> str:
        """What lets people follow and read the channel. A secret."""
        encoded = base64.urlsafe_b64encode(self.key).decode().rstrip("=")
        return f"{_PREFIX}{id_text(self.channel_id)}#{encoded}"

    @property
    def link_key(self) -> bytes:
        """What the mesh checks."""
        return self._derived(b"link")

    @property
    def link_key_hash(self) -> bytes:
        """What the mesh keeps of it."""
        return hashlib.sha256(self.link_key).digest()

    def seal_post(self, said: bytes, key_version: int, post_id: bytes) -> bytes:
        """Encrypt a post, padded, for its place."""
        return _seal(self._derived(b"post"), pad(said), self._place(key_version, post_id))

    def open_post(self, ciphertext: bytes, key_version: int, post_id: bytes) -> bytes | None:
        """What a post says; None if it was not sealed for this place under this key."""
        padded = _open(self._derived(b"post"), ciphertext, self._place(key_version, post_id))
        try:
            return None if padded is None else unpad(padded)
        except MalformedMessage:
            return None

    def seal_attributes(self, attributes: bytes) -> bytes:
        """Encrypt the attributes, padded."""
        return _seal(self._derived(b"attributes"), pad(attributes), self.channel_id)

    def open_attributes(self, ciphertext: bytes) -> bytes | None:
        """The attributes; None if they were not sealed under this key."""
        padded = _open(self._derived(b"attributes"), ciphertext, self.channel_id)
        try:
            return None if padded is None else unpad(padded)
        except MalformedMessage:
            return None

    def seal_for(self, identity: KeyPair) -> bytes:
        """The key as only the account's devices can read it."""
        return _SEALED_VERSION + _seal(_own_key(identity), self.key, self.channel_id)

    @classmethod
    def opened(cls, sealed: bytes, identity: KeyPair, channel_id: bytes) -> "ChannelKey | None":
        """The key that a device of this account has sealed; None if it is none."""
        if sealed[:1] != _SEALED_VERSION:
            return None
        key = _open(_own_key(identity), sealed[1:], channel_id)
        return None if key is None else cls(channel_id, key)

    def _derived(self, what: bytes) -> bytes:
        return derive(self.key, _BYTES, info=b"whimbrel channel " + what + b" v1")

    def _place(self, key_version: int, post_id: bytes) -> bytes:
        return self.channel_id + key_version.to_bytes(4, "big") + post_id


def channel_id_of(owner_id: bytes, creation_id: bytes) -> bytes:
    """The channel that an account makes under a creation id."""
    return hashlib.sha256(b"channel" + owner_id + creation_id).digest()[:16]


def _own_key(identity: KeyPair) -> bytes:
    return derive(identity.private, _BYTES, info=b"whimbrel channel key v1")


def _seal(key: bytes, plaintext: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, bound)


def _open(key: bytes, sealed: bytes, bound: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        return None
