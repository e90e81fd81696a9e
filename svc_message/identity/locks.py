"""The registration lock: a PIN without which a number's account goes to nobody else.

A client sends the PIN's SHA-256; what is stored of that is a salted scrypt hash. A PIN is short,
so that five wrong ones end the trying for a day.
"""

import asyncio
import hashlib
import hmac
import secrets
from datetime import timedelta

from mesh.caller import Caller
from mesh.clock import Clock, SystemClock
from svc_message.identity.buckets import RateLimited
from svc_message.identity.lock_store import LockStore, StoredLock
from svc_message.identity.model import RegistrationLocked

_TRIES = 5
_SALT_BYTES = 16
# 16 MiB and some 50 ms a try.
_COST = 2**14
_BLOCK = 8


class RegistrationLocks:
    """Sets locks, and opens them for who knows the PIN."""

    def __init__(self, store: LockStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()

    async def set(self, caller: Caller, lock: bytes) -> None:
        """Set the account's lock; empty removes it.

        Raises PermissionDenied, DeviceRevoked, Unavailable.
        """
        caller.demand_primary()
        stored = None
        if lock:
            salt = secrets.token_bytes(_SALT_BYTES)
            stored = StoredLock(salt, await _slow_hash(lock, salt))
        await self._store.put(caller, stored)

    async def check(self, user_id: bytes, lock: bytes) -> None:
        """Return if the account has no lock, or this one.

        Raises RegistrationLocked, RateLimited, Unavailable. Asking without a PIN costs no try.
        """
        tried = await self._store.try_once(user_id, costs=bool(lock), tries=_TRIES)
        if tried.retry_at is not None:
            wait = max(tried.retry_at - self._clock.now(), timedelta(seconds=1))
            raise RateLimited("too many PINs were wrong", retry_after=wait)
        if tried.lock is None:
            return
        if not lock or not hmac.compare_digest(
            await _slow_hash(lock, tried.lock.salt), tried.lock.digest
        ):
            raise RegistrationLocked("the number has a registration lock")
        await self._store.passed(user_id)


async def _slow_hash(lock: bytes, salt: bytes) -> bytes:
    # scrypt lets go of the interpreter's lock.
    return await asyncio.to_thread(hashlib.scrypt, lock, salt=salt, n=_COST, r=_BLOCK, p=1)
