"""Invite links: the group, a secret that the mesh never sees, and the key of the group's name."""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from whimbrel_client.groups.attributes import KEY_BYTES, new_key
from whimbrel_client.groups.model import InviteInvalid

_SCHEME = "whimbrel:group:"
_ID_BYTES = 16
_SECRET_BYTES = 16
_JOIN_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Invite:
    """What a link holds. Whoever has it can come in, if they know the password, too."""

    group_id: bytes
    group_key: bytes = field(default_factory=new_key, repr=False)
    secret: bytes = field(default_factory=lambda: os.urandom(_SECRET_BYTES), repr=False)

    def __str__(self) -> str:
        code = base64.urlsafe_b64encode(self.group_id + self.secret + self.group_key)
        return _SCHEME + code.decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> "Invite":
        """Raises InviteInvalid."""
        code = text.strip().removeprefix(_SCHEME)
        try:
            whole = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))
        except (ValueError, binascii.Error) as error:
            raise InviteInvalid("this is no invite link") from error
        if code == text.strip() or len(whole) != _ID_BYTES + _SECRET_BYTES + KEY_BYTES:
            raise InviteInvalid("this is no invite link")
        secret_end = _ID_BYTES + _SECRET_BYTES
        return cls(whole[:_ID_BYTES], whole[secret_end:], whole[_ID_BYTES:secret_end])

    def join_key(self, password: str = "") -> bytes:
        """What the mesh is shown to come in, 32 bytes. Takes a while: run it in a thread."""
        return Argon2id(
            salt=self.group_id + self.secret,
            length=_JOIN_KEY_BYTES,
            iterations=3,
            lanes=4,
            memory_cost=64 * 1024,
        ).derive(password.encode())

    def key_hash(self, password: str = "") -> bytes:
        """What the mesh keeps of the link, 32 bytes."""
        return hashlib.sha256(self.join_key(password)).digest()
