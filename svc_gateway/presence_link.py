"""One stream to one instance of the presence service.

Nothing said is kept for an instance that is not there: when its stream opens, it is told everything
that concerns it anew.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import grpc
import structlog

from mesh.backoff import Backoff
from mesh.channels import Channels
from mesh.clock import Clock
from mesh.errors import Unavailable, root_cause
from svc_gateway import to_presence
from svc_gateway.outbox import Outbox
from svc_gateway.window import KIB
from whimbrel.presence.v1 import presence_pb2

log = structlog.get_logger(__name__)

_METHOD = "/whimbrel.presence.v1.PresenceService/Attach"
_FRAME_BYTES = 1024 * KIB
# An instance that leaves so much unread is told everything anew instead.
_MOST_UNWRITTEN = 16 * 1024 * KIB
_READY_WITHIN = 5.0

Call = Any  # grpc.aio.StreamStreamCall[bytes, AttachResponse]: the type stubs differ by version


class PresenceLink:
    """Keeps the stream open. `everything` are the frames that its instance is told at first."""

    def __init__(
        self,
        instance_id: str,
        channels: Channels,
        *,
        gateway_id: str,
        everything: Callable[[str], Iterable[bytes]],
        on_event: Callable[[presence_pb2.PresenceEvent], None],
        clock: Clock,
    ) -> None:
        self._instance_id = instance_id
        self._channels = channels
        self._gateway_id = gateway_id
        self._everything = everything
        self._on_event = on_event
        self._clock = clock
        self._outbox = Outbox()
        self._overrun = asyncio.Event()
        self._call: Call | None = None

    @property
    def is_open(self) -> bool:
        return self._call is not None

    def say(self, frame: bytes) -> None:
        """Say a frame of one event, if the stream is open."""
        if self._call is None:
            return
        self._outbox.put(frame)
        if self._outbox.size > _MOST_UNWRITTEN:
            self._overrun.set()

    async def run(self) -> None:
        """Keep the stream; ends by cancellation only."""
        backoff = Backoff(most=timedelta(seconds=2))
        while True:
            try:
                await self._converse(backoff)
            except* (grpc.RpcError, asyncio.InvalidStateError, Unavailable, TimeoutError) as broken:
                cause = repr(root_cause(broken))
                log.info("presence stream broke", to=self._instance_id, cause=cause)
            await self._clock.sleep(backoff.next())

    async def _converse(self, backoff: Backoff) -> None:
        channel = self._channels.channel(self._instance_id)
        async with asyncio.timeout(_READY_WITHIN):
            await channel.channel_ready()
        open_stream: Any = channel.stream_stream(
            _METHOD, response_deserializer=presence_pb2.AttachResponse.FromString
        )
        call = open_stream()
        self._call = call
        self._overrun.clear()
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write(call), name="presence-writer")
                guarding = tasks.create_task(self._guard(), name="presence-guard")
                while (frame := await call.read()) is not grpc.aio.EOF:
                    backoff.reset()
                    for event in frame.events:
                        self._on_event(event)
                writing.cancel()
                guarding.cancel()
            await call.code()
        finally:
            call.cancel()
            self._call = None
            self._outbox.clear()

    async def _guard(self) -> None:
        # Not by cancelling the call: that would end the reader as if we were ended ourselves.
        await self._overrun.wait()
        raise TimeoutError("the instance does not read")

    async def _write(self, call: Call) -> None:
        outbox = self._outbox
        await call.write(to_presence.hello(self._gateway_id))
        for frame in self._everything(self._instance_id):
            outbox.put(frame)
        while True:
            await outbox.wait()
            if outbox.size:
                # Whoever can run now adds its own: one turn of the loop for a fuller frame.
                await asyncio.sleep(0)
                await call.write(outbox.take(_FRAME_BYTES))
