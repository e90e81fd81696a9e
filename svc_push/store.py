"""The only SQL of the push service: one sealed token a device."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from mesh.errors import Unavailable
from mesh.postgres import STORE_ERRORS, Pool, fetch
from svc_push.model import Device, Provider, Token
from svc_push.sealing import Seal

_SET = "SELECT set_token($1, $2, $3, $4, $5, $6, $7)"
_FIND = """
SELECT provider, key_id, sealed, registered_at FROM push_token WHERE user_id = $1 AND device_id = $2
"""
_REMOVE = "DELETE FROM push_token WHERE user_id = $1 AND device_id = $2 AND registered_at <= $3"
_REMOVE_AS_READ = """
DELETE FROM push_token WHERE user_id = $1 AND device_id = $2 AND registered_at = $3 RETURNING 1
"""
_FORGET_OLD = "DELETE FROM push_token WHERE registered_at < $1 RETURNING 1"
_UNDER_OLD_KEYS = """
SELECT user_id, device_id, provider, key_id, sealed FROM push_token WHERE key_id <> $1 LIMIT $2
"""
_RESEAL = """
UPDATE push_token SET key_id = $4, sealed = $5
WHERE user_id = $1 AND device_id = $2 AND sealed = $3
"""


class StoreUnavailable(Unavailable):
    """The service's database cannot be reached."""


class TokenStore:
    """Which token a device has."""

    def __init__(
        self, pool: Pool, seal: Seal, on_health: Callable[[bool], None] = lambda _is_well: None
    ) -> None:
        """`on_health` hears whether the database answers."""
        self._pool = pool
        self._seal = seal
        self._on_health = on_health

    async def set(self, device: Device, provider: Provider, secret: bytes, now: datetime) -> None:
        """Bind the token to the device; whoever had it before has none any more."""
        digest = hashlib.sha256(bytes([provider]) + secret).digest()
        sealed = self._seal.seal(device, provider, secret)
        await self._fetch(
            _SET,
            *(device.user_id, device.device_id, provider, digest, self._seal.key_id, sealed, now),
        )

    async def find(self, device: Device) -> Token | None:
        """The device's token. Raises SealBroken if its key is gone."""
        for row in await self._fetch(_FIND, device.user_id, device.device_id):
            provider = Provider(row["provider"])
            secret = self._seal.open(row["key_id"], device, provider, row["sealed"])
            return Token(provider, secret, row["registered_at"])
        return None

    async def remove(self, device: Device, set_before: datetime) -> None:
        """Forget the device's token if it was set then."""
        await self._fetch(_REMOVE, device.user_id, device.device_id, set_before)

    async def remove_as_read(self, device: Device, token: Token) -> bool:
        """Forget the token unless the device has registered again since it was read."""
        rows = await self._fetch(
            _REMOVE_AS_READ, device.user_id, device.device_id, token.registered_at
        )
        return bool(rows)

    async def forget_old(self, before: datetime) -> int:
        """Forget the tokens that no device has registered since; returns how many."""
        return len(await self._fetch(_FORGET_OLD, before))

    async def reseal(self, limit: int) -> int:
        """Seal tokens under the newest key that are under older ones; returns how many it saw."""
        rows = await self._fetch(_UNDER_OLD_KEYS, self._seal.key_id, limit)
        for row in rows:
            device = Device(row["user_id"], row["device_id"])
            provider = Provider(row["provider"])
            secret = self._seal.open(row["key_id"], device, provider, row["sealed"])
            sealed = self._seal.seal(device, provider, secret)
            await self._fetch(
                _RESEAL,
                *(device.user_id, device.device_id, row["sealed"], self._seal.key_id, sealed),
            )
        return len(rows)

    async def _fetch(self, statement: str, *arguments: object) -> list[Any]:
        try:
            rows = await fetch(self._pool, statement, *arguments)
        except STORE_ERRORS as error:
            self._on_health(False)
            raise StoreUnavailable("the push service's database cannot be reached") from error
        self._on_health(True)
        return rows
