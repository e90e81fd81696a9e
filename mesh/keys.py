"""Ed25519 keys in files: a JSON Web Key Set that only its owner can read, never printed."""

import base64
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import FilePath

from mesh.settings import Holds

_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys that verify, by key id, and the one that signs, if this side may sign."""

    public_keys: Mapping[str, Ed25519PublicKey]
    key_id: str = ""
    private_key: Ed25519PrivateKey | None = field(default=None, repr=False)

    @classmethod
    def generate(cls) -> Self:
        """A set of one fresh key."""
        key, key_id = Ed25519PrivateKey.generate(), secrets.token_hex(8)
        return cls({key_id: key.public_key()}, key_id, key)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a set; the first private key signs, all verify. Raises ValueError, OSError."""
        try:
            entries = json.loads(path.read_bytes())["keys"]
            return cls._from_entries(entries)
        except (KeyError, TypeError, ValueError):
            # The cause may quote the file, so it is dropped.
            raise ValueError(f"{path} is not a set of Ed25519 keys") from None

    @classmethod
    def load_signing(cls, path: Path) -> Self:
        """Read a set that can sign. Raises ValueError, OSError."""
        keys = cls.load(path)
        if keys.private_key is None:
            raise ValueError(f"{path} holds no private key")
        return keys

    @classmethod
    def joined(cls, sets: Iterable["KeySet"]) -> Self:
        """The keys that verify for any of these. Raises ValueError if two share an id."""
        public_keys: dict[str, Ed25519PublicKey] = {}
        for key_id, key in (pair for one in sets for pair in one.public_keys.items()):
            if public_keys.setdefault(key_id, key) != key:
                raise ValueError(f"two keys have the id {key_id}")
        return cls(public_keys)

    def save(self, path: Path) -> None:
        """Write the whole set, private key and all, for its owner only; never over another."""
        self._write(path, private=True)

    def save_public(self, path: Path) -> None:
        """Write what verifiers need."""
        self._write(path, private=False)

    @classmethod
    def _from_entries(cls, entries: list[dict[str, str]]) -> Self:
        public_keys: dict[str, Ed25519PublicKey] = {}
        signing: tuple[str, Ed25519PrivateKey | None] = ("", None)
        for entry in entries:
            if (entry["kty"], entry["crv"]) != ("OKP", "Ed25519") or entry["kid"] in public_keys:
                raise ValueError("not an Ed25519 key, or its id is there twice")
            public_keys[entry["kid"]] = Ed25519PublicKey.from_public_bytes(_unbased(entry["x"]))
            if "d" in entry and signing[1] is None:
                key = Ed25519PrivateKey.from_private_bytes(_unbased(entry["d"]))
                if key.public_key() != public_keys[entry["kid"]]:
                    raise ValueError("the halves of the key do not match")
                signing = (entry["kid"], key)
        if not public_keys:
            raise ValueError("no key at all")
        return cls(public_keys, *signing)

    def _write(self, path: Path, *, private: bool) -> None:
        entries = [self._entry(key_id, private=private) for key_id in self.public_keys]
        text = json.dumps({"keys": entries}, indent=2) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)

    def _entry(self, key_id: str, *, private: bool) -> dict[str, Any]:
        public = self.public_keys[key_id].public_bytes_raw()
        entry = {"kty": "OKP", "crv": "Ed25519", "kid": key_id, "x": _based(public)}
        if private and self.private_key is not None and key_id == self.key_id:
            entry["d"] = _based(self.private_key.private_bytes_raw())
        return entry


def _based(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unbased(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# Settings that name such files.
KeySetFile = Annotated[FilePath, Holds(KeySet.load)]
SigningKeyFile = Annotated[FilePath, Holds(KeySet.load_signing)]
