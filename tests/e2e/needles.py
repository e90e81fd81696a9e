"""Secrets that must stand nowhere, in all the ways in which they may have been written down."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf.text_encoding import CEscape

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# Which of its characters base64 of something makes of other bytes too, by what stands before it.
_SHARED = (0, 2, 3)

Found = set[tuple[str, str]]


def written(secret: bytes) -> set[bytes]:
    """As it is, in hex, in base64 at any place of it, and as Python, protobuf and JSON print it."""
    in_hex = secret.hex()
    found = {secret, in_hex.encode(), in_hex.upper().encode()}
    for before, shared in enumerate(_SHARED):
        whole = base64.b64encode(bytes(before) + secret)
        sure = whole[shared : (before + len(secret)) * 4 // 3]
        found |= {sure, sure.translate(_URL_SAFE)}
    for printed in (repr(secret)[2:-1], CEscape(secret, as_utf8=False)):
        found |= {printed.encode(), json.dumps(printed)[1:-1].encode()}
    return found


def stored(secret: bytes) -> set[bytes]:
    """As a database writes it down, as bytes or as text."""
    return {secret, secret.hex().encode()}


def found_in(
    files: Mapping[str, Iterable[Path]], needles: Mapping[str, bytes], *, raw: Iterable[str]
) -> Found:
    """Which needles stand where: (needle, place). In the `raw` places only as they are stored."""
    everywhere = {name: written(needle) for name, needle in needles.items()}
    as_stored = {name: stored(needle) for name, needle in needles.items()}
    found: Found = set()
    for place, paths in files.items():
        wanted = as_stored if place in raw else everywhere
        for path in paths:
            content = path.read_bytes()
            for name, forms in wanted.items():
                if (name, place) not in found and any(form in content for form in forms):
                    found.add((name, place))
    return found


def stands_alone(word: str, content: bytes) -> bool:
    """Whether the word is there, and not as a part of another or of a number."""
    return re.search(rb"(?<![\w.])" + re.escape(word.encode()) + rb"(?![\w.])", content) is not None
