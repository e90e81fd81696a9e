"""Which tokens devices may register, and what becomes of them."""

from collections.abc import Collection
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.clock import Clock
from svc_push.jobs import Jobs
from svc_push.model import (
    POINT_BYTES,
    Device,
    Provider,
    ProviderOff,
    Subscription,
    TokenInvalid,
)
from svc_push.store import TokenStore

log = structlog.get_logger(__name__)

_RESEALED_AT_ONCE = 200


class Tokens:
    """Binds tokens to devices."""

    def __init__(
        self,
        store: TokenStore,
        jobs: Jobs,
        on: Collection[Provider],
        *,
        keep: timedelta,
        clock: Clock,
    ) -> None:
        """`on`: the providers that there is access to; `keep`: for how long without a word."""
        self._store = store
        self._jobs = jobs
        self._on = frozenset(on)
        self._keep = keep
        self._clock = clock

    async def set_apns(self, device: Device, token: bytes) -> None:
        """Bind a token of Apple's. Raises ProviderOff, Unavailable."""
        await self._set(device, Provider.APNS, token)

    async def set_fcm(self, device: Device, token: str) -> None:
        """Bind a token of Google's. Raises ProviderOff, Unavailable."""
        await self._set(device, Provider.FCM, token.encode())

    async def set_web_push(self, device: Device, subscription: Subscription) -> None:
        """Bind a subscription. Raises TokenInvalid, ProviderOff, Unavailable."""
        if not _is_endpoint(subscription.endpoint):
            raise _invalid("web_push.endpoint", "an https URL without a user name")
        if not _is_point(subscription.p256dh):
            raise _invalid("web_push.p256dh", f"a point on P-256, {POINT_BYTES} bytes")
        await self._set(device, Provider.WEB_PUSH, subscription.pack())

    async def remove(self, device: Device, *, set_before: datetime | None = None) -> None:
        """Forget the device's token, whenever or only if it was set then. Raises Unavailable."""
        await self._store.remove(device, set_before or self._clock.now())
        await self._jobs.forget([device])

    async def sweep(self) -> None:
        """Forget tokens of devices that have not come for long; renew the seals of others."""
        forgotten = await self._store.forget_old(self._clock.now() - self._keep)
        if forgotten:
            log.info("forgot old tokens", tokens=forgotten)
        while await self._store.reseal(_RESEALED_AT_ONCE) == _RESEALED_AT_ONCE:
            pass

    async def _set(self, device: Device, provider: Provider, secret: bytes) -> None:
        if provider not in self._on:
            raise ProviderOff(
                "there is no access to this provider", metadata={"provider": provider.name}
            )
        await self._store.set(device, provider, secret, self._clock.now())
        # What could not be sent to the old token is told again, for the new one.
        await self._jobs.forget([device])


def _is_endpoint(url: str) -> bool:
    if not (url.isascii() and url.isprintable()) or " " in url:
        return False
    try:
        split = urlsplit(url)
        is_addressed = bool(split.hostname) and split.port != 0
    except ValueError:
        return False
    return split.scheme == "https" and is_addressed and split.username is None


def _is_point(encoded: bytes) -> bool:
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encoded)
    except ValueError:
        return False
    return len(encoded) == POINT_BYTES


def _invalid(name: str, allowed: str) -> TokenInvalid:
    return TokenInvalid(f"{name} is no token", metadata={"field": name, "allowed": allowed})
