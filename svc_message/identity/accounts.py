"""Who gets a token: a device that has registered, or shows that it still is who it was."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mesh.auth import TokenSigner
from mesh.clock import Clock, SystemClock
from mesh.ids import ID_BYTES, ulid_text
from svc_message.identity.model import DeviceUnknown, NewAccount, SigningDevice
from svc_message.identity.registering import Application, Registering
from svc_message.identity.signing import check_fresh, check_signature, refresh_proof
from svc_message.identity.store import AccountGone, AccountStore

_USUAL_LIFETIME = timedelta(minutes=10)
_SERVICE_PURPOSE = b"service"


@dataclass(frozen=True, slots=True)
class Access:
    """A device's proof of who it is, for a while."""

    user_id: bytes
    device_id: int
    token: str = field(repr=False)
    expires_at: datetime


class Accounts:
    """Gives devices tokens."""

    def __init__(
        self,
        store: AccountStore,
        registering: Registering,
        signer: TokenSigner,
        *,
        clock: Clock | None = None,
        token_lifetime: timedelta = _USUAL_LIFETIME,
    ) -> None:
        self._store = store
        self._registering = registering
        self._signer = signer
        self._token_lifetime = token_lifetime
        self._clock = clock or SystemClock()

    async def register(self, wanted: Application) -> Access:
        """A token for the primary device of the account; raises what Registering raises."""
        return self._access(await self._registering.register(wanted))

    async def refresh(
        self, user_id: bytes, device_id: int, *, signed_at: int, signature: bytes
    ) -> Access:
        """The device's next token; `signed_at` in milliseconds.

        Raises DeviceUnknown, SignatureInvalid, SignatureStale, Unavailable.
        """
        check_fresh(signed_at, self._clock.now())
        device = await self._device(user_id, device_id)
        check_signature(device.public_key, signature, refresh_proof(user_id, device_id, signed_at))
        if not device.is_seen:  # else an idle device, though its stream may be open for weeks
            await self._store.mark_seen(device)
        return self._access(device)

    async def ensure_service_account(self, name: str) -> bytes:
        """The account that the internal team's service `name` acts as. Raises Unavailable."""
        user_id = hashlib.sha256(_SERVICE_PURPOSE + name.encode()).digest()[:ID_BYTES]
        await self._store.make_account(NewAccount(user_id, has_queue=False))
        return user_id

    async def _device(self, user_id: bytes, device_id: int) -> SigningDevice:
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
