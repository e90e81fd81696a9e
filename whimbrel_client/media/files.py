"""The API of files: `client.files`."""

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from whimbrel.content.v1 import content_pb2
from whimbrel.content.v1.content_pb2 import Content, Media, MediaKind, Pointer
from whimbrel_client.media import saving
from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.media.errors import FileMissing
from whimbrel_client.media.pictures import picture_of
from whimbrel_client.media.sending import OnProgress, Uploading
from whimbrel_client.media.uploads import UploadStore
from whimbrel_client.model import OutgoingMessage

Send = Callable[[bytes | str, Content], Awaitable[OutgoingMessage]]

_ANYTHING = "application/octet-stream"
_KINDS = {
    "video": content_pb2.MEDIA_KIND_VIDEO,
    "audio": content_pb2.MEDIA_KIND_AUDIO,
}


class HasContent(Protocol):
    """A received or an own message."""

    @property
    def content(self) -> Content | None: ...


class Files:
    """Sends files and saves them."""

    def __init__(self, store: UploadStore, calls: MediaCalls, send: Send) -> None:
        self._uploading = Uploading(store, calls)
        self._calls = calls
        self._send = send

    async def send(
        self,
        to: bytes | str,
        path: Path | str,
        *,
        caption: str = "",
        on_progress: OnProgress = lambda _done, _total: None,
    ) -> OutgoingMessage:
        """Bring a file to the store, sealed, then queue the message that tells of it.

        What was interrupted goes on with the next call for the same file. An image takes a small
        picture along. Raises FileTooLarge, FileChanged, TransferFailed, CallFailed
        (MEDIA_QUOTA_EXCEEDED and others), Unreachable, OSError, and what `send` of words does.
        """
        path = Path(path)
        media = await asyncio.to_thread(_media_of, path)
        upload_id, media_id, key = await self._uploading.upload(path, on_progress)
        media.size = key.length
        media.caption = caption
        media.pointer.CopyFrom(Pointer(media_id=media_id, key=key.key, digest=key.digest))
        message = await self._send(to, Content(media=media))
        await self._uploading.told(upload_id)
        return message

    async def save(
        self,
        message: HasContent,
        folder: Path | str,
        *,
        on_progress: OnProgress = lambda _done, _total: None,
    ) -> Path:
        """Fetch a message's file into the folder; returns where it is.

        It appears there when all of it is proved to be what was sent; no other file is replaced.
        Raises FileMissing, FileForged, TransferFailed, CallFailed (MEDIA_UNKNOWN: not kept any
        more), Unreachable and OSError.
        """
        content = message.content
        if content is None or not content.HasField("media"):
            raise FileMissing("the message has no file")
        return await saving.save(
            content.media, Path(folder), calls=self._calls, on_progress=on_progress
        )


def _media_of(path: Path) -> Media:
    """What is told of a file, by its bytes where its name may lie."""
    picture = picture_of(path)
    if picture is not None:
        return Media(
            kind=content_pb2.MEDIA_KIND_IMAGE,
            name=path.name,
            mime_type=picture.mime_type,
            width=picture.width,
            height=picture.height,
            thumbnail=picture.thumbnail,
        )
    mime_type = mimetypes.guess_type(path.name)[0] or _ANYTHING
    family = mime_type.partition("/")[0]
    if family == "image":
        mime_type = _ANYTHING
    return Media(kind=_kind_of(family), name=path.name, mime_type=mime_type)


def _kind_of(family: str) -> MediaKind.ValueType:
    return _KINDS.get(family, content_pb2.MEDIA_KIND_DOCUMENT)
