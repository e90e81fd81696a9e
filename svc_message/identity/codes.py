"""One-time codes: made, sent, and compared; a code proves that a number is at hand, and no more.

A code has 6 digits, counts for 10 minutes, and is wrong after 5 tries. It is stored as an HMAC
under a salt of its own, and is used up by the first device key that it is right for.
"""

import hashlib
import hmac
import secrets
from datetime import timedelta

import structlog

from mesh.clock import Clock, SystemClock
from mesh.errors import Unimplemented
from mesh.postgres import STORE_ERRORS
from svc_message.identity.buckets import RateLimited
from svc_message.identity.code_senders import CodeNotSent, CodeSender
from svc_message.identity.model import CodeInvalid
from svc_message.identity.number_store import CodeStore, Issued, StoredCode
from svc_message.identity.numbers import number_hash

log = structlog.get_logger(__name__)

LIFETIME = timedelta(minutes=10)

_DIGITS = 6
_TRIES = 5
_PAUSE = timedelta(seconds=60)
# With 5 tries each, 50 guesses a day: one in 20,000.
_MOST_A_DAY = 10
_SALT_BYTES = 16


class Codes:
    """Sends codes, and tells right ones from wrong ones."""

    def __init__(
        self, store: CodeStore, sender: CodeSender | None, *, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._sender = sender
        self._clock = clock or SystemClock()

    async def request(self, phone_number: str) -> Issued:
        """Send the number its next code; whether it has an account makes no difference.

        Raises RateLimited, CodeNotSent, Unavailable.
        """
        number = number_hash(phone_number)
        if self._sender is None:
            raise Unimplemented("no codes are sent here")
        code = f"{secrets.randbelow(10**_DIGITS):0{_DIGITS}}"
        stored = _stored(code, secrets.token_bytes(_SALT_BYTES))
        issued = await self._store.put(
            number, stored, lifetime=LIFETIME, pause=_PAUSE, most_a_day=_MOST_A_DAY
        )
        if not isinstance(issued, Issued):
            wait = max(issued - self._clock.now(), timedelta(seconds=1))
            raise RateLimited("a code was sent before", retry_after=wait)
        try:
            await self._sender.send(phone_number, code, issued.expires_at)
        except CodeNotSent:
            await self._store.forget(number, stored)
            raise
        return issued

    async def check(self, number: bytes, code: str, *, for_key: bytes) -> None:
        """Use the number's code up for this device key; that key may repeat it.

        Raises CodeInvalid, Unavailable.
        """
        stored = await self._store.try_once(number, tries=_TRIES) if code else None
        if stored is None or not hmac.compare_digest(
            _stored(code, stored.salt).digest, stored.digest
        ):
            raise CodeInvalid("the code is not valid")
        if not await self._store.use(number, stored, for_key=for_key):
            raise CodeInvalid("the code is not valid")

    async def sweep(self) -> None:
        """Remove once, on each shard that can be reached, codes that do not count any more."""
        for shard in self._store.shards:
            try:
                await self._store.remove_old(shard)
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)


def _stored(code: str, salt: bytes) -> StoredCode:
    return StoredCode(salt, hmac.digest(salt, code.encode(), hashlib.sha256))
