"""Lines of standard input for asyncio, taken as they come, never more than a little ahead."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

from whimbrel_client import ClientError

_READ_BYTES = 64 * 1024
_CHUNKS_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """The lines that were there, without their ends, and how many bytes they took."""

    lines: list[str]
    size: int


async def batches() -> AsyncIterator[Batch]:
    """Standard input in batches of whole lines. Raises ClientError at what is not UTF-8."""
    rest, number = b"", 0
    async for chunk in _chunks():
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield Batch(_decoded(whole, number), sum(map(len, whole)) + len(whole))
            number += len(whole)
    if rest:
        yield Batch(_decoded([rest], number), len(rest))


def _decoded(lines: list[bytes], before: int) -> list[str]:
    try:
        return [line.decode() for line in lines]
    except UnicodeDecodeError as error:
        number = before + 1 + lines.index(error.object)
        raise ClientError(f"line {number} of standard input is not UTF-8") from None


async def _chunks() -> AsyncIterator[bytes]:
    chunks: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS_AHEAD)
    loop = asyncio.get_running_loop()

    def read() -> None:
        # The loop may be gone by the time a key is pressed.
        with contextlib.suppress(RuntimeError, OSError):
            chunk = b"-"
            while chunk:
                chunk = os.read(0, _READ_BYTES)
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()

    # A thread of its own, which nobody waits for: it may sit in a read for ever.
    threading.Thread(target=read, name="whimbrel-stdin", daemon=True).start()
    while chunk := await chunks.get():
        yield chunk
