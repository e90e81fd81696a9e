"""Phone numbers: their form, under which hash they are known, and whose they are.

A number's row is written first and the account says the same after that; what a crash leaves in
between is settled by the sweep. The number itself is stored nowhere.
"""

import hashlib
from datetime import timedelta

import structlog

from mesh.postgres import STORE_ERRORS
from svc_message.identity.model import NumberTaken, Registered
from svc_message.identity.number_store import NumberStore
from svc_message.identity.store import AccountStore

log = structlog.get_logger(__name__)

_AGE = timedelta(hours=1)
_AT_ONCE = 500


def number_hash(phone_number: str) -> bytes:
    """What the number is known by."""
    return hashlib.sha256(phone_number.encode()).digest()


class Numbers:
    """Gives numbers to accounts, one account each."""

    def __init__(self, store: NumberStore, accounts: AccountStore) -> None:
        self._store = store
        self._accounts = accounts

    async def holder(self, number: bytes) -> Registered | None:
        """The account that has the number and says so. Raises Unavailable.

        A claim that its account does not confirm is given up: whoever asks has shown a code.
        """
        user_id = await self._store.find(number)
        if user_id is None:
            return None
        account = await self._accounts.registered(user_id)
        if account is not None and account.number_hash == number:
            return account
        await self._store.release(number, user_id)
        return None

    async def give(self, number: bytes, account: Registered) -> None:
        """Give the account this number in place of its own. Raises NumberTaken, Unavailable."""
        user_id = account.user_id
        if await self._store.claim(number, user_id) != user_id:
            raise NumberTaken("the number belongs to another account")
        if account.number_hash is not None and account.number_hash != number:
            # Should the next steps not be taken, the sweep sees which number counts.
            await self._store.mark(account.number_hash, user_id, confirmed=False)
        before = await self._store.set_of(user_id, number)
        for old in {account.number_hash, before}:
            if old is not None and old != number:
                await self._store.release(old, user_id)
        await self._store.mark(number, user_id, confirmed=True)

    async def sweep(self, *, older_than: timedelta = _AGE) -> None:
        """Settle once, on each shard that can be reached, what crashes left unconfirmed."""
        for shard in self._store.shards:
            try:
                for number, user_id in await self._store.unconfirmed(
                    shard, older_than=older_than, limit=_AT_ONCE
                ):
                    await self._settle(number, user_id)
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)

    async def _settle(self, number: bytes, user_id: bytes) -> None:
        account = await self._accounts.registered(user_id)
        if account is not None and account.number_hash == number:
            await self._store.mark(number, user_id, confirmed=True)
        else:
            await self._store.release(number, user_id)
