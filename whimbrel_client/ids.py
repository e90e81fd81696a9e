"""Ids as people see them."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def id_text(ulid: bytes) -> str:
    """The 26 characters of an id of 16 bytes (a ULID)."""
    number = int.from_bytes(ulid, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
