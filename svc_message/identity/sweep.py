"""What is done from time to time: what crashes left, what is too old, and what has ended goes."""

from dataclasses import dataclass
from datetime import timedelta

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.identity.codes import Codes
from svc_message.identity.deleting import Deleting
from svc_message.identity.numbers import Numbers
from svc_message.identity.store import AccountGone, AccountStore

log = structlog.get_logger(__name__)

_AGE = timedelta(hours=1)
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of unclaimed accounts."""

    removed: int = 0
    confirmed: int = 0

    def __add__(self, other: "Swept") -> "Swept":
        return Swept(self.removed + other.removed, self.confirmed + other.confirmed)


class Sweep:
    """One round over every shard; instances may do it at once, and none needs to finish it."""

    def __init__(
        self, store: AccountStore, numbers: Numbers, codes: Codes, deleting: Deleting
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._codes = codes
        self._deleting = deleting

    async def round(self) -> None:
        """Sweep each shard that can be reached."""
        await sweep_unclaimed(self._store)
        await self._numbers.sweep()
        await self._codes.sweep()
        await self._deleting.sweep()


async def sweep_unclaimed(store: AccountStore, *, older_than: timedelta = _AGE) -> Swept:
    """Look once at each shard's unclaimed accounts. Shards that are away are left for later."""
    swept = Swept()
    for shard in store.shards:
        try:
            swept += await _sweep_shard(store, shard, older_than)
        except STORE_ERRORS as error:
            log.warning("sweep given up", shard=shard, error=type(error).__name__)
    return swept


async def _sweep_shard(store: AccountStore, shard: str, older_than: timedelta) -> Swept:
    swept = Swept()
    for user_id, handle in await store.unclaimed(shard, older_than=older_than, limit=_AT_ONCE):
        swept += await _settle(store, user_id, handle)
    return swept


async def _settle(store: AccountStore, user_id: bytes, handle: str) -> Swept:
    if await store.find_handle(handle) != user_id:
        await store.remove_unclaimed(user_id)
        return Swept(removed=1)
    try:
        await store.confirm_handle(user_id)
    except AccountGone:  # a twin of this sweep saw it otherwise, before the claim
        return Swept()
    return Swept(confirmed=1)
