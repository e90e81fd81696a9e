"""References on their way from the shards to the media service."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.media.store import Reference, ReferenceStore

log = structlog.get_logger(__name__)

_AT_ONCE = 500
_LEASE = timedelta(seconds=10)
_SWEEP_SECONDS = 5.0


class Refers(Protocol):
    """A send, as far as it matters here."""

    @property
    def media_ids(self) -> Sequence[bytes]: ...


class References:
    """Notes references before their messages are accepted, and hands out what is to be told."""

    def __init__(self, stores: Mapping[str, ReferenceStore], *, keep: timedelta) -> None:
        """`keep`: how long a message is."""
        self._stores = stores
        self._keep = keep
        self._noted = asyncio.Event()

    async def note_those_of(self, shard: str, sends: Sequence[Refers]) -> None:
        """Make durable what sends refer to that are about to be accepted. Raises STORE_ERRORS."""
        media_ids = [media_id for send in sends if send.media_ids for media_id in send.media_ids]
        if media_ids:
            await self._stores[shard].note(media_ids, self._keep)
            self._noted.set()

    async def batches(self) -> AsyncGenerator[tuple[str, Sequence[Reference]], None]:
        """What is to be told, with its shard, for ever; what is not settled comes again."""
        while True:
            self._noted.clear()
            for shard, store in self._stores.items():
                while taken := await _taken(shard, store):
                    yield shard, taken
            # What another instance left behind comes with the next look, or the one after.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._noted.wait(), _SWEEP_SECONDS)

    async def settle(self, shard: str, entry_ids: Sequence[int]) -> None:
        """The media service has these; if that cannot be kept, it is told again."""
        try:
            await self._stores[shard].settle(entry_ids)
        except STORE_ERRORS as error:
            log.warning("references are told again", shard=shard, error=type(error).__name__)


async def _taken(shard: str, store: ReferenceStore) -> Sequence[Reference]:
    try:
        return await store.take(_AT_ONCE, _LEASE)
    except STORE_ERRORS as error:
        log.warning("references wait", shard=shard, error=type(error).__name__)
        return ()
