"""Grants of the media service, at whichever gateway answers. All raise CallFailed, Unreachable."""

from collections.abc import Awaitable, Callable

import grpc

from whimbrel.media.v1 import media_pb2, media_pb2_grpc
from whimbrel_client.crypto import AttachmentPlan
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization

Stub = media_pb2_grpc.MediaServiceStub
Token = Callable[[], Awaitable[str]]


class MediaCalls:
    """The media service, as this device uses it."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def upload(
        self, upload_id: bytes, plan: AttachmentPlan
    ) -> media_pb2.CreateUploadResponse:
        """What is still to be put of the file."""
        parts = plan.part_digests
        request = media_pb2.CreateUploadRequest(
            upload_id=upload_id,
            size=plan.size,
            sha256=plan.key.digest,
            purpose=media_pb2.PURPOSE_MESSAGE,
            part_sha256=parts if len(parts) > 1 else [],
        )
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> media_pb2.CreateUploadResponse:
            stub = Stub(channel)
            return await stub.CreateUpload(request, timeout=CALL_SECONDS, metadata=metadata)

        return await self._calls.anywhere(call)

    async def complete(self, media_id: str) -> None:
        """All parts are there."""
        metadata = authorization(await self._token())
        request = media_pb2.CompleteUploadRequest(media_id=media_id)

        async def call(channel: grpc.aio.Channel) -> None:
            await Stub(channel).CompleteUpload(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)

    async def download(self, media_id: str) -> str:
        """A URL of the file."""
        metadata = authorization(await self._token())
        request = media_pb2.CreateDownloadRequest(media_id=media_id)

        async def call(channel: grpc.aio.Channel) -> str:
            stub = Stub(channel)
            answer = await stub.CreateDownload(request, timeout=CALL_SECONDS, metadata=metadata)
            return answer.url

        return await self._calls.anywhere(call)
