"""The API of files: `client.files`."""

import asyncio
import mimetypes
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from whimbrel.content.v1 import content_pb2
from whimbrel.content.v1.content_pb2 import Content, Media, MediaKind
from whimbrel_client.media import ranges, saving
from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.media.errors import FileMissing
from whimbrel_client.media.pictures import picture_of
from whimbrel_client.media.pointers import pointer_of
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
        upload_id, media_id, plan = await self._uploading.upload(path, on_progress)
        media.size = plan.key.length
        media.caption = caption
        # Nobody begins in the middle of a picture, and its message has a thumbnail to carry.
        with_chunks = media.kind != content_pb2.MEDIA_KIND_IMAGE
        media.pointer.CopyFrom(pointer_of(media_id, plan, with_chunks=with_chunks))
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
        return await saving.save(
            _media_in(message), Path(folder), calls=self._calls, on_progress=on_progress
        )

    def read(
        self, message: HasContent, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Some of a message's file, from `start` to the end or `length` bytes on, in pieces.

        It is what a player needs that goes to another place. Close it when you want no more.

        Each piece was proved to be what was sent before it comes; for that, up to 16 MiB more are
        fetched. Raises FileMissing, RangeUnproved (the message tells nothing that proves a part:
        images, and senders that are not this SDK), FileForged, TransferFailed, CallFailed
        (MEDIA_UNKNOWN: not kept any more), Unreachable and ValueError.
        """
        return ranges.read(_media_in(message), start, length, calls=self._calls)


def _media_in(message: HasContent) -> Media:
    content = message.content
    if content is None or not content.HasField("media"):
        raise FileMissing("the message has no file")
    return content.media


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
