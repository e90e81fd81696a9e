"""A stream to another service: batches up, what it has made durable down.

Nothing waits for it: when it breaks, what was not answered is told again, to the next instance.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

import grpc
import structlog

from mesh.backoff import Backoff
from mesh.channels import Channels
from mesh.errors import Unavailable

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 5.0
# A write to a call that has ended meanwhile is an invalid state, to grpc.
_BROKEN = (grpc.aio.AioRpcError, asyncio.InvalidStateError, Unavailable, TimeoutError)

B = TypeVar("B")


class Feed(Protocol[B]):
    """What a service is told."""

    @property
    def service(self) -> str:
        """The service's name."""

    def open(self, channel: grpc.aio.Channel) -> Any:
        """A new call of its stream."""

    def batches(self) -> AsyncGenerator[B, None]:
        """What there is to tell; the next when the one before was told."""

    def request(self, batch: B) -> Any:
        """The batch on the wire."""

    async def answered(self, batch: B, answer: Any) -> B | None:
        """What of the batch is still to be told; None: nothing."""


class Uplink(Generic[B]):
    """Keeps a stream to one instance, with one batch on its way; when it breaks, opens another."""

    def __init__(
        self,
        feed: Feed[B],
        channels: Channels,
        *,
        key: bytes,
        on_health: Callable[[bool], None] = lambda _is_well: None,
    ) -> None:
        """`key` chooses the instance; `on_health` hears whether there is one."""
        self._feed = feed
        self._channels = channels
        self._key = key
        self._on_health = on_health
        self._untold: B | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        backoff, tries = Backoff(), 0
        while True:
            try:
                await self._attached(backoff, tries)
            except (*_BROKEN, asyncio.CancelledError) as error:
                if _is_being_cancelled():
                    raise
                self._on_health(False)
                log.debug("no stream", to=self._feed.service, error=type(error).__name__)
            tries += 1
            await asyncio.sleep(backoff.next())

    async def _attached(self, backoff: Backoff, tries: int) -> None:
        ranked = self._channels.ranked(self._key)
        if not ranked:
            raise Unavailable("no instance of the service is known")
        # The next one: an instance that has stopped is not gone.
        channel = self._channels.channel(ranked[tries % len(ranked)])
        call = self._feed.open(channel)
        try:
            await self._tell(call)
            async with aclosing(self._feed.batches()) as batches:
                async for self._untold in batches:
                    await self._tell(call)
                    backoff.reset()
        finally:
            call.cancel()

    async def _tell(self, call: Any) -> None:
        """Tell what is untold, and forget it once the service has it."""
        if self._untold is None:
            return
        async with asyncio.timeout(_ANSWER_SECONDS):
            await call.write(self._feed.request(self._untold))
            answer = await call.read()
        if answer is grpc.aio.EOF:
            raise Unavailable("the service has ended the stream")
        self._on_health(True)
        for refused in answer.refused:  # a bug here; it was not told, and will not be told again
            log.error(
                "out of bounds",
                to=self._feed.service,
                field=refused.field,
                allowed=refused.allowed,
            )
        batch, self._untold = self._untold, None
        self._untold = await self._feed.answered(batch, answer)


def _is_being_cancelled() -> bool:
    """Whether it is this task that is cancelled: grpc says so of a call whose channel is closed."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
