"""Ids of 16 bytes and the slot that a key falls into."""

import functools
import hashlib
import os
import time

ID_BYTES = 16
SLOTS = 16384

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TEXT_LENGTH = 26
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}


def new_ulid(milliseconds: int | None = None) -> bytes:
    """A fresh ULID: 48 bits of time, 80 of chance. An identity, never an order."""
    if milliseconds is None:
        milliseconds = time.time_ns() // 1_000_000
    return milliseconds.to_bytes(6, "big") + os.urandom(10)


def random_id() -> bytes:
    """A fresh id that tells nothing, not even its time."""
    return os.urandom(ID_BYTES)


def ulid_text(ulid: bytes) -> str:
    """The 26 characters that people see."""
    if len(ulid) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes, not {len(ulid)}")
    number = int.from_bytes(ulid, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def parse_ulid(text: str) -> bytes:
    """The bytes behind the text; either case is taken. Raises ValueError."""
    if len(text) != _TEXT_LENGTH:
        raise ValueError(f"an id has {_TEXT_LENGTH} characters, not {len(text)}")
    number = 0
    for character in text.upper():
        if character not in _VALUES:
            raise ValueError("an id has digits and letters other than I, L, O and U only")
        number = number << 5 | _VALUES[character]
    if number >> 128:
        raise ValueError("an id has 128 bits: its first character is 0 to 7")
    return number.to_bytes(ID_BYTES, "big")


@functools.lru_cache(maxsize=65_536)
def slot_of(key: bytes) -> int:
    """The slot of a key: which shard holds it is the slot table's business."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % SLOTS
