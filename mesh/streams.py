"""Reading a stream that may also be ended from this side."""

import asyncio
from typing import Any

import grpc


async def next_request(context: Any, ending: asyncio.Event) -> Any | None:
    """The next request of a call; None when the caller has half-closed, or `ending` is set."""
    reading = asyncio.ensure_future(context.read())
    waiting = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            return None
        request = reading.result()
        return None if request is grpc.aio.EOF else request
    finally:
        reading.cancel()
        waiting.cancel()
