"""The writing half of one device's stream: all that waits in one frame, and a limit on patience."""

import asyncio
from collections.abc import Callable

import grpc

from svc_gateway.ends import SessionEnd, SlowConsumer
from svc_gateway.outbox import Outbox
from svc_gateway.to_device import MOST_FRAME_BYTES
from svc_gateway.window import KIB

# With so much unwritten, the device is read no further and receipts wait in the store.
_CROWDED_BYTES = 512 * KIB
_TICKS_TO_SAY_GOODBYE = 2

Context = grpc.aio.ServicerContext[bytes, bytes]


class FrameWriter:
    """Writes what is put in, until it is told to finish; its task raises what it finished for.

    The task lives while there is something to write and a second longer: an idle stream has none.
    """

    __slots__ = (
        "_blocked_ticks",
        "_context",
        "_end",
        "_is_finishing",
        "_is_quiet",
        "_is_writing",
        "_on_written",
        "_outbox",
        "_patience",
        "_task",
        "_tasks",
    )

    def __init__(
        self,
        context: Context,
        tasks: asyncio.TaskGroup,
        *,
        patience: int,
        on_written: Callable[[], None],
    ) -> None:
        self._context = context
        self._tasks = tasks
        self._outbox = Outbox()
        self._patience = patience  # ticks that one write may take
        self._on_written = on_written
        self._task: asyncio.Task[None] | None = None
        self._end: SessionEnd | None = None
        self._is_finishing = self._is_writing = self._is_quiet = False
        self._blocked_ticks = 0

    @property
    def is_crowded(self) -> bool:
        return self._outbox.size > _CROWDED_BYTES

    def put(self, frame: bytes) -> None:
        """Write a frame of one event, in its turn."""
        self._is_quiet = False
        self._outbox.put(frame)
        if self._task is None:
            self._task = self._tasks.create_task(self._run(), name="session-writer")

    def finish(self, end: SessionEnd | None) -> None:
        """Write what waits, as far as the peer reads it, and end: with an error, or well."""
        self._is_finishing = True
        self._end = end
        self._outbox.wake()

    def tick(self) -> bool:
        """A second has passed; False when the writer rests and needs no more ticks."""
        if self._is_writing:
            self._blocked_ticks += 1
            self._check_patience()
        elif self._is_quiet:
            self._outbox.wake()
        self._is_quiet = not self._is_writing
        return self._task is not None

    def _check_patience(self) -> None:
        patience = _TICKS_TO_SAY_GOODBYE if self._is_finishing else self._patience
        if self._blocked_ticks >= patience and self._task is not None:
            self._end = self._end or SlowConsumer("no frame was read")
            self._is_finishing = True
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._write_all()
        except asyncio.CancelledError:
            if not self._is_finishing:
                raise
        if self._end is not None:
            raise self._end

    async def _write_all(self) -> None:
        outbox, write = self._outbox, self._context.write
        while True:
            if outbox.size:
                self._is_writing = True
                self._blocked_ticks = 0
                await write(outbox.take(MOST_FRAME_BYTES))
                self._is_writing = False
                self._on_written()
            elif self._is_finishing:
                return
            elif self._is_quiet:
                self._task = None
                return
            else:
                await outbox.wait()
