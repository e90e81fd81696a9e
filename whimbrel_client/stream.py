"""One Connect call, from hello to its end: reads, stores, writes, side by side."""

import asyncio
import logging
import time
from collections.abc import Callable

import grpc

from whimbrel.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from whimbrel_client.comeback import Ending
from whimbrel_client.errors import error_of
from whimbrel_client.exchange import BrokenStream, Exchange, reason_name
from whimbrel_client.identity import authorization

log = logging.getLogger(__name__)

CLIENT_NAME = "whimbrel-python"

_WELCOME_SECONDS = 10.0
_GOODBYE_SECONDS = 5.0

# Frames that are read and not yet stored; when there are so many, reading waits.
_MOST_FRAMES = 64

Frames = asyncio.Queue[gateway_pb2.ConnectResponse | None]
Call = grpc.aio.StreamStreamCall[gateway_pb2.ConnectRequest, gateway_pb2.ConnectResponse]


class DeviceStream:
    """The one stream of the device, while it lasts.

    It is ended by half-close: a cancelled call leaks memory in the server.
    """

    def __init__(
        self, channel: grpc.aio.Channel, exchange: Exchange, *, on_open: Callable[[], None]
    ) -> None:
        self._stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        self._exchange = exchange
        self._on_open = on_open
        self._frames: Frames = asyncio.Queue(_MOST_FRAMES)
        self._closing = asyncio.Event()
        self._go_away: gateway_pb2.GoAway | None = None
        self._is_open = False
        self._opened_at = 0.0
        self._is_broken = False
        self._is_reading = False
        self._deadline = asyncio.timeout(_WELCOME_SECONDS)

    def close(self) -> None:
        """End the stream politely; `run` returns when the server has agreed."""
        self._closing.set()
        self._exchange.work.set()
        if not self._is_open:
            # There is nobody yet to say goodbye to.
            self._end_within(0.0)

    async def run(self, token: str) -> Ending:
        """Open the stream and serve it until it ends."""
        call = self._stub.Connect(metadata=authorization(token))
        async with asyncio.TaskGroup() as tasks:
            storing = tasks.create_task(self._store(), name="whimbrel-store-frames")
            writing = tasks.create_task(self._write(call), name="whimbrel-write-frames")
            status = await self._read(call)
            await self._frames.put(None)
            await storing
            was_closed = self._closing.is_set()
            self.close()
            # Not cancelled while it may be keeping when a send is first tried; but the first write
            # of a call that never began would wait for ever.
            if not self._is_open:
                writing.cancel()
            await asyncio.wait((writing,))
        return self._ending(status or ("" if was_closed else "OK"))

    def _ending(self, status: str) -> Ending:
        lasted = time.monotonic() - self._opened_at if self._is_open else 0.0
        if self._is_broken:
            return Ending("BROKEN_STREAM", None, lasted)
        if self._go_away is None:
            return Ending(status, None, lasted)
        after = self._go_away.reconnect_after
        seconds = after.ToTimedelta().total_seconds()
        is_told = self._go_away.HasField("reconnect_after")
        return Ending(reason_name(self._go_away.reason), seconds if is_told else None, lasted)

    async def _read(self, call: Call) -> str:
        """Read to the end; returns the reason in the status, empty for OK."""
        try:
            async with self._deadline:
                self._is_reading = True
                if self._closing.is_set():
                    self._end_within(0.0)
                async for frame in call:
                    self._look_at(frame)
                    await self._frames.put(frame)
        except grpc.aio.AioRpcError as failure:
            return error_of(failure).reason
        except asyncio.InvalidStateError:
            return "CANCELLED"
        except TimeoutError:
            return "DEADLINE_EXCEEDED"
        finally:
            self._is_reading = False
        return ""

    def _look_at(self, frame: gateway_pb2.ConnectResponse) -> None:
        """The first event may open the stream, the last may announce its end."""
        if not frame.events:
            return
        first, last = frame.events[0], frame.events[-1]
        if not self._is_open and first.HasField("welcome"):
            self._is_open = True
            self._opened_at = time.monotonic()
            self._end_within(None)
            self._exchange.opened(first.welcome)
            self._on_open()
        if last.HasField("go_away"):
            self._go_away = last.go_away

    async def _store(self) -> None:
        """Keep what was read; all that waits goes into one transaction."""
        is_over = False
        while not is_over:
            frames = [await self._frames.get()]
            while not self._frames.empty():
                frames.append(self._frames.get_nowait())
            is_over = frames[-1] is None
            try:
                await self._exchange.receive(frame for frame in frames if frame is not None)
            except BrokenStream as error:
                log.warning("the stream is given up: %s", error)
                self._is_broken = True
                self.close()

    async def _write(self, call: Call) -> None:
        """Write what there is until the stream is to be closed; then half-close."""
        try:
            await call.write(await self._exchange.hello(CLIENT_NAME))
            is_over = False
            while not is_over:
                await self._wait_for_work()
                is_over = self._closing.is_set()
                for frame in await self._exchange.frames() if self._is_open else ():
                    await call.write(frame)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the call is over: the reader learns why
        self._end_within(_GOODBYE_SECONDS)

    def _end_within(self, seconds: float | None) -> None:
        if self._is_reading:
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(None if seconds is None else now + seconds)

    async def _wait_for_work(self) -> None:
        """Return when there may be something to write, or the stream is to be closed."""
        seconds = self._exchange.next_retry_in() if self._is_open else None
        timer = None
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(seconds, self._exchange.work.set)
        try:
            await self._exchange.work.wait()
            self._exchange.work.clear()
        finally:
            if timer is not None:
                timer.cancel()
