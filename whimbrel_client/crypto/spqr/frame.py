"""The bytes of an SPQR message: version, epoch, index, kind, and the chunk if there is one."""

from dataclasses import dataclass

from whimbrel_client.crypto.errors import MalformedMessage, UnsupportedVersion
from whimbrel_client.crypto.spqr.chunks import CHUNK_SIZE, INDEX_BOUND, Chunk
from whimbrel_client.crypto.spqr.states import BraidMessage, ChunkKind

VERSION = 1
_WITHOUT_CHUNK = (ChunkKind.NONE, ChunkKind.ACK)
_VARINT_SIZE = 10
_UINT32_BOUND = 1 << 32


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its place among those of its epoch's chain, and what the braid says."""

    index: int
    braid: BraidMessage


def encode(frame: Frame) -> bytes:
    """Write a message."""
    braid = frame.braid
    head = bytes((VERSION,)) + _varint(braid.epoch) + _varint(frame.index) + bytes((braid.kind,))
    if braid.chunk is None:
        return head
    return head + _varint(braid.chunk.index) + braid.chunk.symbols


def decode(body: bytes) -> Frame:
    """Raises MalformedMessage or UnsupportedVersion."""
    if not body:
        raise MalformedMessage("an empty post-quantum message")
    if body[0] != VERSION:
        raise UnsupportedVersion(f"version {body[0]} of the post-quantum ratchet is not spoken")
    epoch, at = _read_varint(body, 1)
    index, at = _read_varint(body, at)
    kind = _kind(body[at : at + 1])
    chunk = None if kind in _WITHOUT_CHUNK else _read_chunk(body, at + 1)
    if epoch == 0 or index >= _UINT32_BOUND:
        raise MalformedMessage("an epoch or an index out of range")
    return Frame(index, BraidMessage(epoch, kind, chunk))


def _kind(byte: bytes) -> ChunkKind:
    try:
        return ChunkKind(byte[0])
    except (IndexError, ValueError) as error:
        raise MalformedMessage("an unknown kind of post-quantum message") from error


def _read_chunk(body: bytes, at: int) -> Chunk:
    index, at = _read_varint(body, at)
    symbols = body[at : at + CHUNK_SIZE]
    if index >= INDEX_BOUND or len(symbols) != CHUNK_SIZE:
        raise MalformedMessage("a chunk is cut")
    return Chunk(index, symbols)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(body[at : at + _VARINT_SIZE]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise MalformedMessage("a number is cut")
