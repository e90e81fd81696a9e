"""A file on its way from the store: opened as it comes, and there only when all of it is proved."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO

from whimbrel.content.v1.content_pb2 import Media
from whimbrel_client.crypto import AttachmentOpener, ForgedAttachment, sealed_length
from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.media.errors import FileForged
from whimbrel_client.media.fetching import fetched
from whimbrel_client.media.names import put_under_free_name
from whimbrel_client.media.pointers import key_of
from whimbrel_client.media.sending import MOST_BYTES, OnProgress


async def save(media: Media, folder: Path, *, calls: MediaCalls, on_progress: OnProgress) -> Path:
    """Fetch the file into the folder, under its own name or one like it; no file is replaced.

    Raises FileForged, TransferFailed, CallFailed (MEDIA_UNKNOWN: it is not kept any more),
    Unreachable and OSError. Then nothing is there.
    """
    if media.size > MOST_BYTES:
        raise FileForged("no file is that large")
    try:
        opener = AttachmentOpener(key_of(media))
        with _draft(folder) as (path, sink):
            await _fetch(media, calls, opener, sink, on_progress)
            opener.finish()
            await asyncio.to_thread(os.fsync, sink.fileno())
            return put_under_free_name(path, folder, media.name)
    except ForgedAttachment as error:
        raise FileForged(f"what the store has is not what was sent: {error}") from error


async def _fetch(
    media: Media,
    calls: MediaCalls,
    opener: AttachmentOpener,
    sink: BinaryIO,
    on_progress: OnProgress,
) -> None:
    """Put what it opens into the sink."""
    total, done = sealed_length(media.size), 0
    async with aclosing(fetched(calls, media.pointer.media_id, 0, total, is_last=True)) as pieces:
        async for piece in pieces:
            done += len(piece)
            if done > total:
                raise FileForged("what the store has is longer than what was sent")
            await asyncio.to_thread(_write, sink, opener, piece)
            on_progress(done, total)


def _write(sink: BinaryIO, opener: AttachmentOpener, piece: bytes) -> None:
    sink.write(opener.update(piece))


@contextmanager
def _draft(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file for the owner's eyes only; gone at the end unless it has another name by then."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".whimbrel-{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as sink:
            yield path, sink
    finally:
        path.unlink(missing_ok=True)
