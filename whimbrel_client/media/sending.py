"""A file on its way to the store: two passes with one key, part by part, resumed where it ended."""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path

import httpx

from whimbrel.media.v1 import media_pb2
from whimbrel_client.crypto import AttachmentPlan, plan_of, sealed_length
from whimbrel_client.errors import CallFailed
from whimbrel_client.media.calls import MediaCalls
from whimbrel_client.media.errors import FileTooLarge, TransferFailed
from whimbrel_client.media.transfer import Answer, from_thread, put, transfers
from whimbrel_client.media.uploads import Begun, UploadStore, Version

PART_BYTES = 16 * 1024 * 1024
MOST_BYTES = 2 * 1024**3

_AT_ONCE = 2
_TRIES = 8  # without a single part that gets there
_LONGEST_PAUSE = 5.0

OnProgress = Callable[[int, int], None]  # hears what is done of how much


class Uploading:
    """Brings files to the store."""

    def __init__(self, store: UploadStore, calls: MediaCalls) -> None:
        self._store = store
        self._calls = calls

    async def upload(
        self, path: Path, on_progress: OnProgress
    ) -> tuple[bytes, str, AttachmentPlan]:
        """Bring the file: its upload id (for `told`), its media id, and its plan.

        Raises FileTooLarge, FileChanged, TransferFailed, CallFailed, Unreachable and OSError.
        """
        version = Version.of(path)
        if version.size > MOST_BYTES:
            raise FileTooLarge(f"a file has at most {MOST_BYTES} bytes, this has {version.size}")
        begun = await self._store.find(version)
        if begun is not None:
            try:
                return await self._bring(path, begun, on_progress)
            except CallFailed as error:
                if error.reason != "MEDIA_UNKNOWN":
                    raise
                # It was begun more than a day ago.
                await self._store.forget(begun.upload_id)
        plan = await _planned(path, on_progress)
        begun = Begun(os.urandom(16), plan)
        await self._store.keep(version, begun)
        return await self._bring(path, begun, on_progress)

    async def told(self, upload_id: bytes) -> None:
        """A message tells of the file: it need not be resumed."""
        await self._store.forget(upload_id)

    async def _bring(
        self, path: Path, begun: Begun, on_progress: OnProgress
    ) -> tuple[bytes, str, AttachmentPlan]:
        tries, plan = 0, begun.plan
        async with transfers() as http:
            while True:
                grant = await self._calls.upload(begun.upload_id, plan)
                brought = _Brought(plan, grant.puts, on_progress)
                left = await _put_all(http, path, brought, grant.puts)
                if not left:
                    break
                tries = 0 if left < len(grant.puts) else tries + 1
                if tries == _TRIES:
                    raise TransferFailed("the store cannot be reached; send the file again later")
                await asyncio.sleep(random.uniform(0, min(0.1 * 2**tries, _LONGEST_PAUSE)))  # noqa: S311
        if len(plan.part_digests) > 1:
            await self._calls.complete(grant.media_id)
        return begun.upload_id, grant.media_id, plan


class _Brought:
    """How much is done: the first pass is one half, the second the other."""

    def __init__(
        self, plan: AttachmentPlan, puts: Iterable[media_pb2.Put], on_progress: OnProgress
    ) -> None:
        self.plan = plan
        self._done = 2 * plan.size - sum(one.size for one in puts)
        self._on_progress = on_progress

    def add(self, size: int) -> None:
        """So many bytes more, or fewer where they must go again."""
        self._done += size
        self._on_progress(self._done, 2 * self.plan.size)


async def _planned(path: Path, on_progress: OnProgress) -> AttachmentPlan:
    loop, done = asyncio.get_running_loop(), 0

    def work() -> AttachmentPlan:
        with path.open("rb") as source:
            total = sealed_length(os.fstat(source.fileno()).st_size)

            def tell(size: int) -> None:
                nonlocal done
                done += size
                loop.call_soon_threadsafe(on_progress, done, 2 * total)

            return plan_of(source, part_size=PART_BYTES, on_progress=tell)

    return await asyncio.to_thread(work)


async def _put_all(
    http: httpx.AsyncClient, path: Path, brought: _Brought, puts: Iterable[media_pb2.Put]
) -> int:
    """Bring the parts, some at once; returns how many must be granted again."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(wanted: media_pb2.Put) -> Answer:
        async with turns:
            sent = _Sent(brought)
            with path.open("rb") as source:
                pieces = brought.plan.read(source, wanted.offset // PART_BYTES)
                answer = await put(
                    http, wanted.url, wanted.headers, sent.counted(from_thread(pieces))
                )
            if answer is not Answer.DONE:
                brought.add(-sent.size)
            return answer

    try:
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(one(wanted), name="put") for wanted in puts]
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    return sum(task.result() is not Answer.DONE for task in working)


class _Sent:
    """The bytes of one try."""

    def __init__(self, brought: _Brought) -> None:
        self._brought = brought
        self.size = 0

    async def counted(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            yield piece
            self.size += len(piece)
            self._brought.add(len(piece))
