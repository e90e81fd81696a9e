"""Ids as people see them."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 26


def id_text(ulid: bytes) -> str:
    """The 26 characters of an id of 16 bytes (a ULID)."""
    number = int.from_bytes(ulid, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def id_of(text: str) -> bytes:
    """The id behind the 26 characters; either case is taken. Raises ValueError."""
    number = 0
    for character in text.upper():
        number = number << 5 | _ALPHABET.index(character)
    if len(text) != _LENGTH or number >> 128:
        raise ValueError(f"an id has {_LENGTH} characters, and its first is 0 to 7")
    return number.to_bytes(16, "big")
