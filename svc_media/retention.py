"""How long objects are kept: until the last message that refers to one expires."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from mesh.clock import Clock
from svc_media.objects import ObjectStore
from svc_media.store import MediaStore

log = structlog.get_logger(__name__)

_AT_ONCE = 100
_USAGE_KEPT = timedelta(days=2)


class Retention:
    """Takes references, and removes what is over."""

    def __init__(
        self, store: MediaStore, objects: ObjectStore, *, longest: timedelta, clock: Clock
    ) -> None:
        """`longest`: how old an object gets at most, whatever refers to it."""
        self._store = store
        self._objects = objects
        self._longest = longest
        self._clock = clock

    async def refer(self, references: Sequence[tuple[bytes, datetime]]) -> None:
        """Messages refer to these objects, and expire then. Raises StoreUnavailable."""
        await self._store.refer(references, longest=self._longest)

    async def sweep(self) -> int:
        """Remove all that is over now, from the bucket first; returns how many objects.

        A crash in the middle leaves rows that the next sweep takes again.
        """
        now, removed = self._clock.now(), 0
        while over := await self._store.end(now, _AT_ONCE):
            for upload in over:
                await self._objects.remove(upload)
            await self._store.forget([upload.media_id for upload in over])
            removed += len(over)
        await self._store.forget_usage(now - _USAGE_KEPT)
        if removed:
            log.info("removed what is over", objects=removed)
        return removed
