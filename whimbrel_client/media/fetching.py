"""Bytes of a sealed file from the store; where a connection breaks, another goes on from there."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.media.errors import TransferFailed
from whimbrel_client.media.transfer import get, transfers

_TRIES = 8  # without a single byte
_LONGEST_PAUSE = 5.0


async def fetched(
    calls: MediaCalls, media_id: str, first: int, end: int, *, is_last: bool = False
) -> AsyncGenerator[bytes, None]:
    """The bytes from `first` to `end`; the store need not tell the truth, nor keep to them.

    `is_last`: the file ends there; what it has more comes too. Raises TransferFailed, CallFailed
    and Unreachable.
    """
    at, tries = first, 0
    async with transfers() as http:
        while at < end:
            url, before = await calls.download(media_id), at
            async with aclosing(get(http, url, at, None if is_last else end)) as pieces:
                async for piece in pieces:
                    at += len(piece)
                    yield piece
            tries = 0 if at > before else tries + 1
            if tries == _TRIES:
                raise TransferFailed(f"the store has given {at - first:,} of {end - first:,} bytes")
            if at < end:
                await asyncio.sleep(random.uniform(0, min(0.1 * 2**tries, _LONGEST_PAUSE)))  # noqa: S311
