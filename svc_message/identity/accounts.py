"""The rules of accounts: who may have a handle, and who gets a token.

Register writes the account first and claims its handle after that. Whoever claims second removes
its own account; a crash between the two leaves an account that the sweep removes.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from mesh.auth import TokenSigner
from mesh.clock import Clock, SystemClock
from mesh.errors import InvalidArgument, Unavailable
from mesh.ids import ID_BYTES, new_ulid, ulid_text
from svc_message.identity.model import (
    PRIMARY,
    DeviceUnknown,
    HandleTaken,
    HandleUnknown,
    NewAccount,
    SigningDevice,
    check_handle,
    is_handle,
)
from svc_message.identity.signing import (
    KEY_BYTES,
    check_fresh,
    check_signature,
    refresh_proof,
    register_proof,
)
from svc_message.identity.store import AccountGone, AccountStore

log = structlog.get_logger(__name__)

_USUAL_LIFETIME = timedelta(minutes=10)
_MOST_DEVICE_ID = 127
_SERVICE_PURPOSE = b"service"


@dataclass(frozen=True, slots=True)
class Access:
    """A device's proof of who it is, for a while."""

    user_id: bytes
    device_id: int
    token: str = field(repr=False)
    expires_at: datetime


class Accounts:
    """Makes accounts, finds them, and gives their devices tokens."""

    def __init__(
        self,
        store: AccountStore,
        signer: TokenSigner,
        *,
        clock: Clock | None = None,
        token_lifetime: timedelta = _USUAL_LIFETIME,
    ) -> None:
        self._store = store
        self._signer = signer
        self._token_lifetime = token_lifetime
        self._clock = clock or SystemClock()

    async def register(
        self, handle: str, public_key: bytes, *, signed_at: int, signature: bytes
    ) -> Access:
        """The account with this handle and key, new or not; `signed_at` in milliseconds.

        Raises HandleInvalid, HandleTaken, SignatureInvalid, SignatureStale, InvalidArgument,
        Unavailable.
        """
        check_handle(handle)
        _check_length("device_public_key", public_key, KEY_BYTES)
        check_fresh(signed_at, self._clock.now())
        check_signature(public_key, signature, register_proof(handle, signed_at))
        owner = await self._store.find_handle(handle)
        if owner is None:
            owner = await self._claim(handle, public_key)
        return self._access(await self._own(owner, handle, public_key))

    async def refresh(
        self, user_id: bytes, device_id: int, *, signed_at: int, signature: bytes
    ) -> Access:
        """The device's next token; `signed_at` in milliseconds.

        Raises DeviceUnknown, SignatureInvalid, SignatureStale, InvalidArgument, Unavailable.
        """
        _check_length("user_id", user_id, ID_BYTES)
        check_fresh(signed_at, self._clock.now())
        device = await self._device(user_id, device_id)
        check_signature(device.public_key, signature, refresh_proof(user_id, device_id, signed_at))
        return self._access(device)

    async def look_up(self, handle: str) -> bytes:
        """The account that has the handle. Raises HandleUnknown, Unavailable."""
        owner = await self._store.find_handle(handle) if is_handle(handle) else None
        if owner is None:
            raise HandleUnknown("no account has this handle")
        return owner

    async def ensure_service_account(self, name: str) -> bytes:
        """The account that the internal team's service `name` acts as. Raises Unavailable."""
        user_id = hashlib.sha256(_SERVICE_PURPOSE + name.encode()).digest()[:ID_BYTES]
        await self._store.make_account(NewAccount(user_id, has_queue=False))
        return user_id

    async def _claim(self, handle: str, public_key: bytes) -> bytes:
        user_id = new_ulid()
        await self._store.make_account(NewAccount(user_id, handle, public_key))
        owner = await self._store.claim_handle(handle, user_id)
        if owner != user_id:
            await self._give_up(user_id)
        return owner

    async def _give_up(self, user_id: bytes) -> None:
        try:
            await self._store.remove_unclaimed(user_id)
        except Unavailable:
            log.info("a spare account is left to the sweep", user_id=ulid_text(user_id))

    async def _own(self, owner: bytes, handle: str, public_key: bytes) -> SigningDevice:
        """The owner's primary device, if it has this key."""
        try:
            device = await self._store.signing_device(owner)
            if device is None or not hmac.compare_digest(device.public_key, public_key):
                raise HandleTaken("the handle belongs to an account with another key")
            await self._store.confirm_handle(owner)
        except AccountGone:
            # The sweep took the account while its claim was late by an hour.
            await self._store.release_handle(handle, owner)
            raise Unavailable("the handle is about to be free") from None
        return device

    async def _device(self, user_id: bytes, device_id: int) -> SigningDevice:
        device = None
        if PRIMARY <= device_id <= _MOST_DEVICE_ID:
            try:
                device = await self._store.signing_device(user_id, device_id)
            except AccountGone:
                device = None
        if device is None:
            raise DeviceUnknown("no such device")
        return device

    def _access(self, device: SigningDevice) -> Access:
        token, expires_at = self._signer.device_token(
            user=ulid_text(device.user_id),
            device_id=device.device_id,
            credential_version=device.credential_version,
            lifetime=self._token_lifetime,
        )
        return Access(device.user_id, device.device_id, token, expires_at)


def _check_length(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        allowed = f"{length} bytes"
        raise InvalidArgument(
            f"{name} has another length", metadata={"field": name, "allowed": allowed}
        )
