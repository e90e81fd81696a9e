"""Keeps the device connected: one stream after another, at one gateway or the next."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from whimbrel_client.comeback import BAD_TOKEN, Comeback, Ending
from whimbrel_client.errors import CallFailed, DeviceRevoked, Unreachable
from whimbrel_client.exchange import Exchange
from whimbrel_client.grpc_channel import open_channel
from whimbrel_client.identity import Tokens
from whimbrel_client.stream import DeviceStream

T = TypeVar("T")

log = logging.getLogger(__name__)

_RENEWAL_RETRY_SECONDS = 5.0


class OnChange(Protocol):
    """Told at which gateway a stream is open now; None: at none."""

    def __call__(self, gateway: str | None) -> None: ...


class Connection:
    """The streams of the device, one at a time, until it is closed or revoked."""

    def __init__(
        self,
        gateways: Sequence[str],
        *,
        tokens: Tokens,
        exchange: Exchange,
        on_change: OnChange,
        ca: str = "",
    ) -> None:
        self._gateways = list(gateways)
        self._tokens = tokens
        self._exchange = exchange
        self._ca = ca
        self._comeback = Comeback()
        self._closing = asyncio.Event()
        self._stream: DeviceStream | None = None
        self._on_change = on_change
        random.shuffle(self._gateways)

    def close(self) -> None:
        """End the stream politely and come back no more; `run` returns then."""
        self._closing.set()
        if self._stream is not None:
            self._stream.close()

    async def run(self) -> None:
        """Be connected, or on the way there. Raises DeviceRevoked; StoreFailed from below."""
        while not self._closing.is_set():
            ending = await self._one_stream()
            if self._closing.is_set():
                return
            log.info("stream ended: %s", ending)
            if ending.reason in BAD_TOKEN:
                self._tokens.forget()
            if ending.reason:
                self._gateways.append(self._gateways.pop(0))
            await self._pause(self._comeback.delay_after(ending))

    async def _one_stream(self) -> Ending:
        try:
            token = await self._unless_closing(self._tokens.current())
        except Unreachable as error:
            log.info("%s", error)
            return Ending("UNREACHABLE")
        except DeviceRevoked as error:
            return Ending(error.reason)
        except CallFailed as error:
            log.warning("no access token: %s (%s)", error, error.reason)
            return Ending(error.reason)
        if token is None:
            return Ending()
        gateway = self._gateways[0]
        async with open_channel(gateway, self._ca) as channel:
            stream = DeviceStream(channel, self._exchange, on_open=lambda: self._on_change(gateway))
            self._stream = stream
            if self._closing.is_set():
                return Ending()
            try:
                return await self._serve(stream, token)
            finally:
                self._stream = None
                self._exchange.ended()
                self._on_change(None)

    async def _serve(self, stream: DeviceStream, token: str) -> Ending:
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._renew(stream), name="whimbrel-renew-token")
            ending = await stream.run(token)
            renewing.cancel()
        return ending

    async def _renew(self, stream: DeviceStream) -> None:
        """Have the next token before this one ends, then change to a stream that has it."""
        await asyncio.sleep(self._tokens.renew_in())
        while True:
            try:
                await self._tokens.renew()
                break
            except (CallFailed, Unreachable) as error:
                log.warning("the access token could not be renewed: %s", error)
            await asyncio.sleep(random.uniform(1.0, _RENEWAL_RETRY_SECONDS))  # noqa: S311
        stream.close()

    async def _unless_closing(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of the work; None if the connection is to be closed before it is there."""
        working = asyncio.create_task(work, name="whimbrel-token")
        closing = asyncio.create_task(self._closing.wait(), name="whimbrel-closing")
        try:
            await asyncio.wait((working, closing), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            closing.cancel()
            await asyncio.gather(working, closing, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
