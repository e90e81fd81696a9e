"""The key server: gives out, once and within limits, what opens sessions to an account's devices.

Limits keep a stranger from using up the one-time keys. Who asks too often for one device is
refused. A target of whom all together ask too often keeps its pools, and its signed and
last-resort keys answer: nobody can make a person unreachable by asking.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc

from mesh.caller import Caller
from mesh.errors import Unavailable, WhimbrelError
from mesh.metrics import PREKEY_LIMITS, PREKEYS_TAKEN
from mesh.telemetry import OFF, Telemetry
from svc_message.identity.buckets import Buckets, Limit, RateLimited
from svc_message.identity.keys_model import Bundle, KeyInvalid, OneTimeKey, Upload
from svc_message.identity.keys_store import KeyStore, OwnKeys, Taken

LOW = 20
FINGERPRINT_BYTES = 4

_REQUESTER = Limit(permits=6, every=timedelta(minutes=10))
_TARGET = Limit(permits=100, every=timedelta(seconds=30))

# Hears of a device whose one-time keys run out: how many EC and KEM keys are left.
LowPrekeys = Callable[[tuple[bytes, int], int, int], None]


class KeysUnknown(WhimbrelError):
    """There is no such account or device, or nothing of it can be given."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "RECIPIENT_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What opens sessions to an account's devices."""

    identity_key: bytes
    bundles: Sequence[Bundle]


class Keys:
    """Takes in public keys, and gives them out."""

    def __init__(
        self,
        store: KeyStore,
        buckets: Buckets,
        *,
        on_low: LowPrekeys,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._store = store
        self._buckets = buckets
        self._on_low = on_low
        self._taken = telemetry.counter(PREKEYS_TAKEN)
        self._limited = telemetry.counter(PREKEY_LIMITS)

    async def upload(self, caller: Caller, upload: Upload) -> None:
        """Replace keys of the calling device.

        Raises KeyInvalid, KeySignatureInvalid, DeviceRevoked, Unavailable; then nothing changes.
        """
        own = await self._own(caller)
        # Checking a hundred signatures takes longer than a message may wait.
        await asyncio.to_thread(upload.check, own.identity_key)
        if not await self._store.upload(caller, own.identity_key, upload):
            raise Unavailable("the account's identity key has just been replaced")

    async def count(self, caller: Caller) -> tuple[int, int]:
        """How many one-time EC and KEM keys are left. Raises DeviceRevoked, Unavailable."""
        own = await self._store.own_keys(caller)
        return (0, 0) if own is None else (own.ec_left, own.kem_left)

    async def check(self, caller: Caller, digest: bytes) -> bool:
        """Whether the device's keys are those stored. Raises DeviceRevoked, Unavailable."""
        own = await self._store.own_keys(caller)
        return own is not None and _digest(own) == digest

    async def fetch(self, caller: Caller, user_id: bytes, device_id: int) -> Fetched:
        """Take what opens sessions to one device, or to all if it is 0.

        Of all, those are left out for which the caller has asked too often.

        Raises KeysUnknown, RateLimited, DeviceRevoked, Unavailable.
        """
        await self._store.check_caller(caller)
        devices = await self._store.keyed_devices(user_id, device_id)
        if not devices:
            raise _unknown()
        allowed = await self._allowed(caller, user_id, devices)
        pools = await self._has_pools(user_id)
        taken = await self._store.take(user_id, allowed, pools=pools)
        if not taken:
            raise _unknown()
        for one in taken:
            self._count(user_id, one)
        return Fetched(taken[0].identity_key, [one.bundle for one in taken])

    async def changed_identities(
        self, caller: Caller, known: Mapping[bytes, bytes]
    ) -> dict[bytes, bytes]:
        """Of these accounts, the identity keys whose fingerprints are others.

        Raises DeviceRevoked, Unavailable.
        """
        await self._store.check_caller(caller)
        present = await self._store.identity_keys([*known])
        return {
            user_id: key
            for user_id, key in present.items()
            if hashlib.sha256(key).digest()[:FINGERPRINT_BYTES] != known[user_id]
        }

    async def _own(self, caller: Caller) -> OwnKeys:
        own = await self._store.own_keys(caller)
        if own is None:
            raise KeyInvalid(
                "the device was registered without keys",
                metadata={"field": "identity_key", "allowed": "registering with keys"},
            )
        return own

    async def _allowed(
        self, caller: Caller, user_id: bytes, devices: Sequence[tuple[int, int]]
    ) -> list[int]:
        """The devices for which the caller may ask now, at least one."""
        requester = f"{caller.user_id.hex()}:{caller.device_id}"
        names = [
            f"prekeys:{{{user_id.hex()}}}:{device}:{registration}:{requester}"
            for device, registration in devices
        ]
        waits = await self._buckets.take(names, _REQUESTER)
        allowed = [device for (device, _), wait in zip(devices, waits, strict=True) if not wait]
        if len(allowed) < len(devices):
            self._limited.add(1, {"by": "requester"})
        if not allowed:
            raise RateLimited("the keys were fetched too often", retry_after=min(waits))
        return allowed

    async def _has_pools(self, user_id: bytes) -> bool:
        """Whether one-time keys of the account may be given out now."""
        [wait] = await self._buckets.take([f"prekeys:{{{user_id.hex()}}}"], _TARGET)
        if wait:
            self._limited.add(1, {"by": "target"})
        return not wait

    def _count(self, user_id: bytes, taken: Taken) -> None:
        bundle = taken.bundle
        self._taken.add(1, {"kind": "ec" if bundle.one_time else "ec_none"})
        self._taken.add(1, {"kind": "kem" if taken.kem_is_one_time else "kem_last_resort"})
        if min(taken.ec_left, taken.kem_left) < LOW:
            self._on_low((user_id, bundle.device_id), taken.ec_left, taken.kem_left)


def _digest(own: OwnKeys) -> bytes:
    """What a device that holds the same keys computes."""
    stored = own.identity_key + _numbered(own.signed) + _numbered(own.last_resort)
    return hashlib.sha256(stored).digest()


def _numbered(key: OneTimeKey) -> bytes:
    return key.id.to_bytes(8, "big") + key.public_key


def _unknown() -> KeysUnknown:
    return KeysUnknown("no such device has keys")
