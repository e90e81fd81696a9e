"""The writing half of one device's stream: all that waits in one frame, and a limit on patience."""

import asyncio
from collections.abc import Awaitable, Callable

from svc_gateway.ends import SessionEnd, SlowConsumer
from svc_gateway.outbox import Outbox
from svc_gateway.to_device import MOST_FRAME_BYTES
from svc_gateway.window import KIB

# With so much unwritten, the device is read no further and receipts wait in the store.
_CROWDED_BYTES = 512 * KIB
_TICKS_TO_SAY_GOODBYE = 2


class FrameWriter:
    """Writes until it is told to finish; its `run` raises what it finished for."""

    __slots__ = (
        "_blocked_ticks",
        "_end",
        "_is_finishing",
        "_on_written",
        "_outbox",
        "_patience",
        "_task",
        "is_writing",
    )

    def __init__(self, *, patience: int, on_written: Callable[[], None]) -> None:
        self._outbox = Outbox()
        self._patience = patience  # ticks that one write may take
        self._on_written = on_written
        self._task: asyncio.Task[None] | None = None
        self._end: SessionEnd | None = None
        self._is_finishing = False
        self._blocked_ticks = 0
        self.is_writing = False

    @property
    def is_crowded(self) -> bool:
        return self._outbox.size > _CROWDED_BYTES

    def put(self, frame: bytes) -> None:
        """Write a frame of one event, in its turn."""
        self._outbox.put(frame)

    def finish(self, end: SessionEnd | None) -> None:
        """Write what waits, as far as the peer reads it, and end: with an error, or well."""
        self._is_finishing = True
        self._end = end
        self._outbox.wake()

    def tick(self) -> None:
        """A second has passed; only called while a write may be under way."""
        if not self.is_writing:
            return
        self._blocked_ticks += 1
        if self._is_finishing:
            is_over = self._blocked_ticks >= _TICKS_TO_SAY_GOODBYE
        else:
            is_over = self._blocked_ticks >= self._patience
        if is_over and self._task is not None:
            self._end = self._end or SlowConsumer("no frame was read")
            self._is_finishing = True
            self._task.cancel()

    async def run(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write for as long as the stream lasts."""
        self._task = asyncio.current_task()
        try:
            await self._write_all(write)
        except asyncio.CancelledError:
            if not self._is_finishing:
                raise
        if self._end is not None:
            raise self._end

    async def _write_all(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        outbox = self._outbox
        while True:
            if outbox.size:
                self.is_writing = True
                self._blocked_ticks = 0
                await write(outbox.take(MOST_FRAME_BYTES))
                self.is_writing = False
                self._on_written()
            elif self._is_finishing:
                return
            else:
                await outbox.wait()
