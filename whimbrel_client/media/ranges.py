"""The middle of a file, from the store: only what is proved comes out."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from whimbrel.content.v1.content_pb2 import Media
from whimbrel_client.crypto import Chunks, ForgedAttachment
from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.media.errors import FileForged
from whimbrel_client.media.fetching import fetched
from whimbrel_client.media.pointers import chunks_of, key_of
from whimbrel_client.media.sending import MOST_BYTES


async def read(
    media: Media, start: int, length: int | None, *, calls: MediaCalls
) -> AsyncGenerator[bytes, None]:
    """The plaintext from `start` on, as `Files.read` tells."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError("a range begins at 0 or later, and has 0 bytes or more")
    if media.size > MOST_BYTES:
        raise FileForged("no file is that large")
    end = media.size if length is None else min(start + length, media.size)
    try:
        chunks = chunks_of(media)
        if start < end:
            async with aclosing(_chunks(media, chunks, start, end, calls)) as opened:
                async for number, plaintext in opened:
                    at = number * chunks.size
                    yield plaintext[max(start - at, 0) : end - at]
    except ForgedAttachment as error:
        raise FileForged(f"what the store has is not what was sent: {error}") from error


async def _chunks(
    media: Media, chunks: Chunks, start: int, end: int, calls: MediaCalls
) -> AsyncGenerator[tuple[int, bytes], None]:
    """The chunks that have the range, opened, each when all of it is there."""
    key, numbers = key_of(media).key, chunks.covering(start, end)
    first, last = chunks.sealed(numbers[0])[0], chunks.sealed(numbers[-1])[1]
    held, wanted = bytearray(), iter(numbers)
    number = next(wanted)
    async with aclosing(fetched(calls, media.pointer.media_id, first, last)) as pieces:
        async for piece in pieces:
            held += piece
            while len(held) >= (size := _size(chunks, number)):
                chunk = bytes(held[:size])
                yield number, await asyncio.to_thread(chunks.open, key, number, chunk)
                del held[: chunks.size]  # the last block is the next one's first
                number = next(wanted, -1)
                if number < 0:
                    return


def _size(chunks: Chunks, number: int) -> int:
    first, end = chunks.sealed(number)
    return end - first
