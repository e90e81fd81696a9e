"""MediaService on the wire: reads requests, says who calls, writes answers; decides nothing."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.bounds import checker_of
from mesh.caller import caller_of
from mesh.ids import parse_ulid
from mesh.streams import next_request
from svc_media.grants import Grants, Put
from svc_media.model import Draft, MediaUnknown
from svc_media.retention import Retention
from whimbrel.media.v1 import media_pb2, media_pb2_grpc

_REFERENCE = checker_of(media_pb2.Reference.DESCRIPTOR)


class MediaServicer(media_pb2_grpc.MediaServiceServicer):
    """Answers devices, by gateways, and message instances."""

    def __init__(self, grants: Grants, retention: Retention) -> None:
        self._grants = grants
        self._retention = retention
        self._ending = asyncio.Event()

    def end_streams(self) -> None:
        """Let the message instances go elsewhere."""
        self._ending.set()

    async def CreateUpload(
        self, request: media_pb2.CreateUploadRequest, context: Any
    ) -> media_pb2.CreateUploadResponse:
        owner = caller_of(context).user_id
        parts = list(request.part_sha256)
        draft = Draft(request.upload_id, request.size, request.sha256, parts)
        granted = await self._grants.create_upload(owner, draft)
        return media_pb2.CreateUploadResponse(
            media_id=granted.media_id,
            puts=[_put(put) for put in granted.puts],
            expires_at=_timestamp(granted.expires_at),
        )

    async def CompleteUpload(
        self, request: media_pb2.CompleteUploadRequest, context: Any
    ) -> media_pb2.CompleteUploadResponse:
        await self._grants.complete_upload(caller_of(context).user_id, _media_id(request.media_id))
        return media_pb2.CompleteUploadResponse()

    async def CreateDownload(
        self, request: media_pb2.CreateDownloadRequest, context: Any
    ) -> media_pb2.CreateDownloadResponse:
        media_id = _media_id(request.media_id)
        url, expires_at = await self._grants.create_download(caller_of(context).user_id, media_id)
        return media_pb2.CreateDownloadResponse(url=url, expires_at=_timestamp(expires_at))

    async def Attach(self, _requests: Any, context: Any) -> None:  # type: ignore[override]
        while (request := await next_request(context, self._ending)) is not None:
            taken, refused = _REFERENCE.parted(request.references)
            references = _references(taken)
            if references:
                await self._retention.refer(references)
            await context.write(
                media_pb2.AttachResponse(
                    done=[one.id for one in request.references],
                    refused=[
                        media_pb2.RefusedReference(
                            id=one.id, field=wrong.field, allowed=wrong.allowed
                        )
                        for one, wrong in refused
                    ],
                )
            )


def _media_id(text: str) -> bytes:
    try:
        return parse_ulid(text)
    except ValueError:
        raise MediaUnknown("there is no such file") from None


def _references(told: Sequence[media_pb2.Reference]) -> list[tuple[bytes, datetime]]:
    """Those that can name an object at all."""
    found = []
    for one in told:
        try:
            found.append((parse_ulid(one.media_id), one.expires_at.ToDatetime(tzinfo=UTC)))
        except (ValueError, OverflowError):
            continue
    return found


def _put(put: Put) -> media_pb2.Put:
    return media_pb2.Put(url=put.url, headers=put.headers, offset=put.offset, size=put.size)


def _timestamp(time: datetime) -> Timestamp:
    return Timestamp(seconds=int(time.timestamp()))
