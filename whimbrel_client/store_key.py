"""The key of the local store: made once, and kept in the key ring, in a file, or in a head.

A card beside the store, `store.key`, tells where the key is. It is written before the store, and
a store without its card is lost: nothing here ever makes a second key for one.
"""

import json
import logging
import os
import stat
import unicodedata
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keyring
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from keyring.backend import KeyringBackend
from keyring.core import recommended
from keyring.errors import KeyringError

from whimbrel_client.errors import StoreKeyMissing, StoreKeyUnsafe, StoreKeyWrong
from whimbrel_client.files import write_secret

log = logging.getLogger(__name__)

_KEY_BYTES = 32
_SERVICE = "whimbrel"
# What RFC 9106 recommends where memory is not plentiful; each card has its own, so this may grow.
_COST = {"iterations": 3, "lanes": 4, "memory_kib": 64 * 1024}


@dataclass(frozen=True, slots=True)
class Protection:
    """How the key of a store is kept: by itself, in the system's key ring, if there is one.

    `passphrase`: the key is made of it, and kept nowhere; whoever forgets it has lost the store.
    `key_ring=False`: a new key goes into a file beside the store, as where there is no key ring.
    """

    passphrase: str | None = field(default=None, repr=False)
    key_ring: bool = True

    def __post_init__(self) -> None:
        if self.passphrase == "":
            raise ValueError("the passphrase is empty")


BY_ITSELF = Protection()


class StoreKey:
    """32 bytes that show themselves to the driver only."""

    __slots__ = ("_raw", "origin")

    def __init__(self, raw: bytes, origin: str) -> None:
        """`origin` tells a person where it comes from. Raises ValueError on another length."""
        if len(raw) != _KEY_BYTES:
            raise ValueError(f"a key has {_KEY_BYTES} bytes, not {len(raw)}")
        self._raw = raw
        self.origin = origin

    def __repr__(self) -> str:
        return f"<StoreKey: {self.origin}>"

    def for_driver(self) -> str:
        """As SQLCipher takes a key that needs no stretching."""
        return f"x'{self._raw.hex()}'"


def store_key(store: Path, protection: Protection, *, may_be_new: bool) -> StoreKey:
    """The key of the store at this path, made if that is allowed and there is none.

    Raises StoreKeyMissing, StoreKeyUnsafe, and StoreKeyWrong for a passphrase it was not made of.
    """
    if may_be_new and not _path(store).exists():
        write_card(store, new_card(protection))
    return key_of(read_card(store), store, protection)


def read_card(store: Path) -> dict[str, Any]:
    """What tells where the key is. Raises StoreKeyMissing, StoreKeyUnsafe."""
    path = _path(store)
    card = _read(path)
    if card is None:
        raise StoreKeyMissing(f"{path} is gone, and without it {store} cannot be opened")
    try:
        read = json.loads(card)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise _damaged(path)
    return read


def write_card(store: Path, card: Mapping[str, Any]) -> None:
    """Put the card, whole, in the place of the one before."""
    write_secret(_path(store), json.dumps(card, indent=2).encode())


def key_of(card: Mapping[str, Any], store: Path, protection: Protection) -> StoreKey:
    """The key that the card tells of. Raises StoreKeyMissing and StoreKeyWrong."""
    path = _path(store)
    try:
        return _key_of(card, path, protection)
    except (KeyError, OverflowError, TypeError, ValueError):
        # Not the cause: it may quote the card.
        raise _damaged(path) from None


def forget(card: Mapping[str, Any]) -> None:
    """Delete a key that opens nothing any more from the key ring, if that is where it is."""
    ring = _ring() if card.get("kept") == "key ring" else None
    if ring is None:
        return
    try:
        ring.delete_password(_SERVICE, card["name"])
    except Exception as error:  # noqa: BLE001  # rings raise all kinds
        log.warning("an old key stays in the key ring (%s)", type(error).__name__)


def _path(store: Path) -> Path:
    return store.with_suffix(".key")


def _damaged(path: Path) -> StoreKeyMissing:
    return StoreKeyMissing(f"{path} is damaged, or was written by a later version")


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            card = file.read()
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise StoreKeyUnsafe(f"{path} has mode {mode:04o}, so others may read it: make it 0600")
    return card


def new_card(protection: Protection) -> dict[str, Any]:
    """A new key, put where the protection says, and the card that tells where."""
    card: dict[str, Any] = {"version": 1}
    if protection.passphrase is not None:
        return card | {"kept": "passphrase", "salt": os.urandom(16).hex(), "cost": _COST}
    key = os.urandom(_KEY_BYTES).hex()
    name = _put_into_ring(key) if protection.key_ring else None
    if name is None:
        return card | {"kept": "file", "key": key}
    return card | {"kept": "key ring", "name": name}


def _key_of(card: Any, path: Path, protection: Protection) -> StoreKey:
    """Raises ValueError and its like if the card is not one."""
    match card:
        case {"version": 1, "kept": "passphrase", "salt": str(salt), "cost": dict(cost)}:
            return _stretched(protection, bytes.fromhex(salt), cost)
        case {"version": 1, "kept": "key ring", "name": str(name)}:
            key = StoreKey(bytes.fromhex(_from_ring(name)), "the key in the key ring")
        case {"version": 1, "kept": "file", "key": str(text)}:
            key = StoreKey(bytes.fromhex(text), f"the key in {path}")
        case _:
            raise ValueError("no card")
    if protection.passphrase is not None:
        raise StoreKeyWrong(f"the store is opened by {key.origin}, not by a passphrase")
    return key


def _stretched(protection: Protection, salt: bytes, cost: Mapping[str, int]) -> StoreKey:
    if protection.passphrase is None:
        raise StoreKeyMissing("the store is protected by a passphrase, and none was given")
    # Keyboards differ in how they write the same letter.
    passphrase = unicodedata.normalize("NFC", protection.passphrase).encode()
    stretching = Argon2id(
        salt=salt,
        length=_KEY_BYTES,
        iterations=cost["iterations"],
        lanes=cost["lanes"],
        memory_cost=cost["memory_kib"],
    )
    return StoreKey(stretching.derive(passphrase), "this passphrase")


def _ring() -> KeyringBackend | None:
    """The key ring of the system; no plain file that calls itself one, no stand-in."""
    chosen = keyring.get_keyring()
    return next((one for one in getattr(chosen, "backends", [chosen]) if recommended(one)), None)


def _put_into_ring(key: str) -> str | None:
    """Returns the name under which the key is found again; None if no ring keeps it."""
    name = uuid.uuid4().hex
    ring = _ring()
    if ring is None:
        return None
    try:
        ring.set_password(_SERVICE, name, key)
        is_kept = ring.get_password(_SERVICE, name) == key
    except Exception as error:  # noqa: BLE001  # rings raise all kinds; the file is there for it
        log.warning("the key ring keeps no key (%s): it goes into a file", type(error).__name__)
        return None
    return name if is_kept else None


def _from_ring(name: str) -> str:
    ring = _ring()
    if ring is None:
        raise StoreKeyMissing("the key is in the system's key ring, and there is none here")
    try:
        key = ring.get_password(_SERVICE, name)
    except KeyringError as error:
        raise StoreKeyMissing(f"the key ring does not give the key: {error}") from error
    if key is None:
        raise StoreKeyMissing(f"the key ring has no key of the name {name} any more")
    return key
