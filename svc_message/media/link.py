"""The stream to the media service: references up, what it has kept down."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.backoff import Backoff
from mesh.channels import Channels
from mesh.errors import Unavailable
from mesh.ids import ulid_text
from mesh.service_auth import ServiceCredentials
from svc_message.media.references import References
from svc_message.media.store import Reference
from whimbrel.media.v1 import media_pb2, media_pb2_grpc

log = structlog.get_logger(__name__)

SERVICE = "media"
_ANSWER_SECONDS = 5.0
# The last: of a write to a stream that has ended already.
_BROKEN = (grpc.aio.AioRpcError, Unavailable, TimeoutError, asyncio.InvalidStateError)


class MediaLink:
    """Keeps a stream to one instance, with one batch on its way; when it breaks, opens another."""

    def __init__(
        self,
        references: References,
        channels: Channels,
        credentials: ServiceCredentials,
        *,
        key: bytes,
        on_health: Callable[[bool], None] = lambda _is_well: None,
    ) -> None:
        """`key` chooses the media instance; `on_health` hears whether there is one."""
        self._references = references
        self._channels = channels
        self._credentials = credentials
        self._key = key
        self._on_health = on_health
        self._untold: tuple[str, Sequence[Reference]] | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = Backoff()
        while True:
            try:
                await self._attached(backoff)
            except _BROKEN as error:
                self._on_health(False)
                log.debug("no stream to the media service", error=type(error).__name__)
            await asyncio.sleep(backoff.next())

    async def _attached(self, backoff: Backoff) -> None:
        channel = self._channels.pick(self._key)
        stub: Any = media_pb2_grpc.MediaServiceStub(channel)
        call = stub.Attach(metadata=self._credentials.metadata_for(SERVICE))
        try:
            await self._tell(call)
            async with aclosing(self._references.batches()) as batches:
                async for self._untold in batches:
                    await self._tell(call)
                    backoff.reset()
        finally:
            call.cancel()

    async def _tell(self, call: Any) -> None:
        """Tell what is untold, and forget it once the service has it."""
        if self._untold is None:
            return
        shard, batch = self._untold
        async with asyncio.timeout(_ANSWER_SECONDS):
            await call.write(media_pb2.AttachRequest(references=map(_reference, batch)))
            answer = await call.read()
        if answer is grpc.aio.EOF:
            raise Unavailable("the media service has ended the stream")
        self._on_health(True)
        self._untold = None
        await self._references.settle(shard, answer.done)


def _reference(reference: Reference) -> media_pb2.Reference:
    expires_at = Timestamp()
    expires_at.FromDatetime(reference.expires_at)
    return media_pb2.Reference(
        id=reference.entry_id, media_id=ulid_text(reference.media_id), expires_at=expires_at
    )
