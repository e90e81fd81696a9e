"""What is done from time to time on every shard: old queue rows expire, old dedup is emptied."""

from datetime import timedelta

import structlog

from mesh.metrics import EXPIRED
from mesh.postgres import STORE_ERRORS
from mesh.telemetry import Telemetry
from svc_message.shards.directory import Shards
from svc_message.store import ShardStore

log = structlog.get_logger(__name__)

_CHUNK = 500
_FIRST = (b"", 0)


class Sweeps:
    """One round over every shard; instances may do it at once, and none needs to finish it."""

    def __init__(
        self,
        shards: Shards,
        stores: dict[str, ShardStore],
        *,
        keep: timedelta,
        telemetry: Telemetry,
    ) -> None:
        self._shards = shards
        self._stores = stores
        self._keep = keep
        self._expired = telemetry.counter(EXPIRED)

    async def round(self) -> None:
        """Sweep each shard that can be reached."""
        for name in self._shards.names:
            try:
                await self.expire(self._stores[name])
                await self._stores[name].empty_old_dedup()
                await self._stores[name].traces.forget(self._keep)
                await self._stores[name].forget_first_contacts()
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=name, error=type(error).__name__)

    async def expire(self, store: ShardStore) -> int:
        """Acknowledge, for its device, every prefix of a queue that is older than it may get."""
        before = await store.now() - self._keep
        after, total = _FIRST, 0
        while True:
            looked_at = await store.expire(after, before, _CHUNK)
            total += sum(expired for _, _, expired in looked_at)
            if len(looked_at) < _CHUNK:
                break
            after = looked_at[-1][:2]
        if total:
            log.info("expired", rows=total)
            self._expired.add(total)
        return total
