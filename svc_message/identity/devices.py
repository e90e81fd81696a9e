"""The rules of linked devices: who links, names and unlinks them, and when an idle one goes."""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import date, timedelta

import structlog

from mesh.auth import TokenSigner
from mesh.caller import Caller
from mesh.clock import Clock, SystemClock
from mesh.errors import PermissionDenied
from mesh.ids import ulid_text
from mesh.postgres import STORE_ERRORS
from svc_message.identity.accounts import Access
from svc_message.identity.devices_model import LinkedDevice, LinkToken
from svc_message.identity.devices_store import DeviceStore, Unlinked
from svc_message.identity.keys_model import DeviceKeys
from svc_message.identity.model import PRIMARY
from svc_message.identity.signing import check_fresh, check_signature, link_proof

log = structlog.get_logger(__name__)

LINK_TOKEN_BYTES = 32

_LINK_WITHIN = timedelta(minutes=2)
_USUAL_LIFETIME = timedelta(minutes=10)
_AT_ONCE = 200

# Ends the sessions of a device below an epoch, wherever they are.
Revoke = Callable[[tuple[bytes, int], int], Awaitable[None]]


class Devices:
    """Links, lists, names and unlinks the devices of accounts."""

    def __init__(
        self,
        store: DeviceStore,
        signer: TokenSigner,
        *,
        revoke: Revoke,
        clock: Clock | None = None,
        token_lifetime: timedelta = _USUAL_LIFETIME,
    ) -> None:
        self._store = store
        self._signer = signer
        self._revoke = revoke
        self._clock = clock or SystemClock()
        self._token_lifetime = token_lifetime

    async def demand_primary(self, caller: Caller) -> None:
        """Return if the caller is its account's primary, and still is.

        Raises PermissionDenied, DeviceRevoked, Unavailable.
        """
        caller.demand_primary()
        await self._store.check_caller(caller)

    async def create_link_token(self, caller: Caller) -> LinkToken:
        """A secret with which one device may link itself; an older one is worth nothing now.

        Raises PermissionDenied, TooManyDevices, DeviceRevoked, Unavailable.
        """
        caller.demand_primary()
        token = secrets.token_bytes(LINK_TOKEN_BYTES)
        expires_at = await self._store.create_link_token(
            caller, hashlib.sha256(token).digest(), lifetime=_LINK_WITHIN
        )
        return LinkToken(token, expires_at)

    async def link(
        self,
        user_id: bytes,
        link_token: bytes,
        public_key: bytes,
        *,
        keys: DeviceKeys,
        name: bytes,
        signed_at: int,
        signature: bytes,
    ) -> Access:
        """Link the device that signed; `signed_at` in milliseconds.

        Raises LinkTokenInvalid, TooManyDevices, KeyInvalid, KeySignatureInvalid, SignatureInvalid,
        SignatureStale, Unavailable.
        """
        token_hash = hashlib.sha256(link_token).digest()
        check_fresh(signed_at, self._clock.now())
        check_signature(public_key, signature, link_proof(user_id, token_hash, signed_at))
        await asyncio.to_thread(keys.check)
        device = await self._store.link(user_id, token_hash, public_key, name, keys)
        token, expires_at = self._signer.device_token(
            user=ulid_text(user_id),
            device_id=device.device_id,
            credential_version=device.credential_version,
            lifetime=self._token_lifetime,
        )
        return Access(user_id, device.device_id, token, expires_at)

    async def list(self, caller: Caller) -> list[LinkedDevice]:
        """The devices of the caller's account. Raises DeviceRevoked, Unavailable."""
        return await self._store.devices(caller)

    async def rename(self, caller: Caller, device_id: int, name: bytes) -> None:
        """Name a device of the caller's account.

        Raises DeviceUnknown, DeviceRevoked, Unavailable.
        """
        await self._store.rename(caller, device_id, name)

    async def revoke(self, caller: Caller, device_id: int) -> None:
        """Unlink a device, and return when the gateways know; its streams end within 2 s.

        Raises PermissionDenied, DeviceUnknown, DeviceRevoked, Unavailable.
        """
        if device_id == PRIMARY:
            raise PermissionDenied("the primary device is not unlinked: delete the account")
        if caller.device_id not in (PRIMARY, device_id):
            raise PermissionDenied("a linked device unlinks only itself")
        await self._tell(await self._store.revoke(caller, device_id))

    async def sweep(self, *, idle_after: timedelta) -> int:
        """Unlink devices that were away for so long, forget old link tokens; how many devices."""
        before = (self._clock.now() - idle_after).date()
        count = 0
        for shard in self._store.shards:
            try:
                await self._store.forget(shard, limit=_AT_ONCE)
                count += await self._unlink_idle(shard, before)
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)
        if count:
            log.info("idle devices unlinked", devices=count)
        return count

    async def _unlink_idle(self, shard: str, before: date) -> int:
        count = 0
        while unlinked := await self._store.unlink_idle(shard, before=before, limit=_AT_ONCE):
            async with asyncio.TaskGroup() as tasks:
                for device in unlinked:
                    tasks.create_task(self._tell(device), name="tell-unlinked")
            count += len(unlinked)
        return count

    async def _tell(self, device: Unlinked) -> None:
        await self._revoke((device.user_id, device.device_id), device.below_epoch)
