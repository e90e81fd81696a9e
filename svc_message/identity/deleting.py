"""The end of an account: at once nobody finds it or acts for it, and a sweep removes the rest.

What it has sent is its recipients': copies that were promised are delivered, and only then does
the chat go. Every step may be repeated, and the account's own row goes last.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from mesh.caller import Caller
from mesh.errors import Unavailable
from mesh.postgres import STORE_ERRORS
from svc_message.identity.deleting_store import DeletedAccount, DeletingStore
from svc_message.identity.ending import Sessions, end_sessions
from svc_message.identity.number_store import CodeStore, NumberStore
from svc_message.identity.store import AccountStore

log = structlog.get_logger(__name__)

# Calls that began before the end have ended by then.
_AGE = timedelta(seconds=10)
_AT_ONCE = 200

# Takes an account out of its groups; may be repeated. Raises Unavailable.
Depart = Callable[[bytes], Awaitable[None]]


class Deleting:
    """Deletes accounts."""

    def __init__(
        self,
        store: DeletingStore,
        accounts: AccountStore,
        numbers: NumberStore,
        codes: CodeStore,
        sessions: Sessions,
        *,
        depart: Depart,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._numbers = numbers
        self._codes = codes
        self._sessions = sessions
        self._depart = depart

    async def delete(self, caller: Caller) -> None:
        """Begin the end of the caller's account.

        Raises PermissionDenied, DeviceRevoked, Unavailable.
        """
        caller.demand_primary()
        await end_sessions(self._sessions, await self._store.begin(caller))

    async def sweep(self, *, older_than: timedelta = _AGE) -> int:
        """Remove once, on each shard that can be reached, what has ended; return how many went."""
        removed = 0
        for shard in self._store.shards:
            try:
                for account in await self._store.deleted(
                    shard, older_than=older_than, limit=_AT_ONCE
                ):
                    removed += await self._remove(account)
            except (*STORE_ERRORS, Unavailable) as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)
        return removed

    async def _remove(self, account: DeletedAccount) -> bool:
        """Remove all of the account; False if something is still on its way to others."""
        if account.handle is not None:
            await self._accounts.release_handle(account.handle, account.user_id)
        if account.number_hash is not None:
            await self._numbers.release(account.number_hash, account.user_id)
            await self._codes.remove(account.number_hash)
        await self._depart(account.user_id)
        are_gone = [await self._remove_chats(shard, account) for shard in self._store.shards]
        return all(are_gone) and await self._store.remove(account.user_id)

    async def _remove_chats(self, shard: str, account: DeletedAccount) -> bool:
        await self._store.forget_blocks(shard, account.user_id)
        while chats := await self._store.chats(shard, account.user_id, limit=_AT_ONCE):
            done = [chat for chat in chats if not chat.is_pending]
            for chat in done:
                await self._store.forget(chat)
            if len(done) < len(chats):
                return False
        return True
