"""The erasure code of the ML-KEM Braid: any n chunks of a message that needs n give it back.

A chunk is 16 symbols of 16 bits. Symbol i of chunk x is the value at x of the i-th of 16
polynomials; the message is their values at 0, 1, 2 …, so its first chunks are the message itself.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from whimbrel_client.crypto.spqr.field import ORDER, tables

CHUNK_SIZE = 32
INDEX_BOUND = 1 << 16
_SYMBOLS = struct.Struct(">16H")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a message."""

    index: int
    symbols: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Encoder:
    """A message that is being sent; it has more chunks than are ever needed."""

    message: bytes
    next_index: int = 0

    def next_chunk(self) -> tuple["Encoder", Chunk]:
        # After 65,536 chunks without an answer the first ones come again.
        index = self.next_index
        after = Encoder(self.message, (index + 1) % INDEX_BOUND)
        start = index * CHUNK_SIZE
        if start < len(self.message):
            return after, Chunk(index, self.message[start : start + CHUNK_SIZE])
        return after, Chunk(index, _value_at(index, _in_order(self.message)))


@dataclass(frozen=True, slots=True, repr=False)
class Decoder:
    """A message of known size that is being received."""

    size: int
    chunks: Mapping[int, bytes]

    def with_chunk(self, chunk: Chunk) -> "Decoder":
        if chunk.index in self.chunks or len(self.chunks) * CHUNK_SIZE >= self.size:
            return self
        return Decoder(self.size, {**self.chunks, chunk.index: chunk.symbols})

    def message(self) -> bytes | None:
        """Return the message, or None while chunks are wanting."""
        count = self.size // CHUNK_SIZE
        if len(self.chunks) < count:
            return None
        known = self.chunks
        return b"".join(
            known[index] if index in known else _value_at(index, known) for index in range(count)
        )


def empty_decoder(size: int) -> Decoder:
    """Wait for a message of this many bytes."""
    return Decoder(size, {})


def _in_order(message: bytes) -> dict[int, bytes]:
    return {
        start // CHUNK_SIZE: message[start : start + CHUNK_SIZE]
        for start in range(0, len(message), CHUNK_SIZE)
    }


def _value_at(x: int, points: Mapping[int, bytes]) -> bytes:
    """Interpolate all 16 polynomials at a place that is not among the points (Lagrange)."""
    log, exp = tables()
    places = tuple(points)
    all_factors = sum(log[x ^ place] for place in places)
    value = [0] * 16
    for place, denominator in zip(places, _denominators(places), strict=True):
        weight = (all_factors - log[x ^ place] - denominator) % ORDER
        for i, symbol in enumerate(_SYMBOLS.unpack(points[place])):
            if symbol:
                value[i] ^= exp[weight + log[symbol]]
    return _SYMBOLS.pack(*value)


@lru_cache(maxsize=64)
def _denominators(places: tuple[int, ...]) -> tuple[int, ...]:
    """For each place, the logarithm of the product of its differences from all others."""
    log, _ = tables()
    return tuple(
        sum(log[place ^ other] for other in places if other != place) % ORDER for place in places
    )
