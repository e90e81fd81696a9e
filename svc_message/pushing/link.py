"""The stream to the push service: news of devices up, what it has made durable down."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from mesh.backoff import Backoff
from mesh.channels import Channels
from mesh.errors import Unavailable
from mesh.service_auth import ServiceCredentials
from svc_message.pushing.news import AnyNews, Connected, News, Wake
from whimbrel.push.v1 import push_pb2, push_pb2_grpc

log = structlog.get_logger(__name__)

SERVICE = "push"
_ANSWER_SECONDS = 5.0
# A write to a call that has ended meanwhile is an invalid state, to grpc.
_BROKEN = (grpc.aio.AioRpcError, asyncio.InvalidStateError, Unavailable, TimeoutError)


class PushLink:
    """Keeps a stream to one instance, with one batch on its way; when it breaks, opens another."""

    def __init__(
        self,
        news: News,
        channels: Channels,
        credentials: ServiceCredentials,
        *,
        key: bytes,
        on_health: Callable[[bool], None] = lambda _is_well: None,
    ) -> None:
        """`key` chooses the push instance; `on_health` hears whether there is one."""
        self._news = news
        self._channels = channels
        self._credentials = credentials
        self._key = key
        self._on_health = on_health
        self._untold: Sequence[AnyNews] = ()

    async def run(self) -> None:
        """Work until cancelled."""
        backoff, tries = Backoff(), 0
        while True:
            try:
                await self._attached(backoff, tries)
            except _BROKEN as error:
                self._on_health(False)
                log.debug("no stream to the push service", error=type(error).__name__)
            tries += 1
            await asyncio.sleep(backoff.next())

    async def _attached(self, backoff: Backoff, tries: int) -> None:
        ranked = self._channels.ranked(self._key)
        if not ranked:
            raise Unavailable("no instance of the push service is known")
        # The next one: an instance that has stopped is not gone.
        channel = self._channels.channel(ranked[tries % len(ranked)])
        stub: Any = push_pb2_grpc.PushServiceStub(channel)
        call = stub.Attach(metadata=self._credentials.metadata_for(SERVICE))
        try:
            await self._tell(call)
            async with aclosing(self._news.batches()) as batches:
                async for self._untold in batches:
                    await self._tell(call)
                    backoff.reset()
        finally:
            call.cancel()

    async def _tell(self, call: Any) -> None:
        """Tell what is untold, and forget it once the service has it."""
        if not self._untold:
            return
        request = push_pb2.AttachRequest(
            news=[_news(number, one) for number, one in enumerate(self._untold)]
        )
        async with asyncio.timeout(_ANSWER_SECONDS):
            await call.write(request)
            answer = await call.read()
        if answer is grpc.aio.EOF:
            raise Unavailable("the push service has ended the stream")
        self._on_health(True)
        done = set(answer.done)
        self._untold = [one for number, one in enumerate(self._untold) if number not in done]


def _news(number: int, one: AnyNews) -> push_pb2.News:
    told = push_pb2.News(id=number, user_id=one.device[0], device_id=one.device[1])
    if isinstance(one, Wake):
        told.wake.epoch, told.wake.acked_pos, told.wake.urgent = (
            one.epoch,
            one.acked_pos,
            one.is_urgent,
        )
        told.wake.SetInParent()
    elif isinstance(one, Connected):
        told.connected.epoch = one.epoch
    else:
        told.unlinked.at.FromDatetime(one.at)
    return told
