"""The mailbox by which a primary reaches a device that is not linked yet: one use, two minutes.

The server sees an address that the new device chose at random, and a ciphertext for a key that it
never sees.
"""

import hashlib
from datetime import timedelta

from mesh.clock import Clock, SystemClock
from mesh.errors import ResourceExhausted
from svc_message.identity.devices_model import ProvisioningEmpty
from svc_message.identity.devices_store import DeviceStore

_LIFETIME = timedelta(minutes=2)
_MOST_WAITING = 200  # a call that needs no token may cost little
_PAUSES = (0.1, 0.2, 0.4, 0.8)  # seconds; the last is repeated


class Provisioning:
    """Leaves ciphertexts at addresses, and waits for them there."""

    def __init__(self, store: DeviceStore, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._waiting = 0

    async def leave(self, address: bytes, ciphertext: bytes) -> None:
        """Leave a ciphertext for two minutes; the same again changes nothing.

        Raises ProvisioningTaken, Unavailable.
        """
        digest = hashlib.sha256(ciphertext).digest()
        await self._store.leave(address, digest, ciphertext, lifetime=_LIFETIME)

    async def take(self, address: bytes, *, within: timedelta) -> bytes:
        """Wait for what is left at an address, and take it from there.

        Raises ProvisioningEmpty, ResourceExhausted, Unavailable.
        """
        if self._waiting >= _MOST_WAITING:
            raise ResourceExhausted("too many wait to be linked")
        self._waiting += 1
        try:
            return await self._poll(address, within.total_seconds())
        finally:
            self._waiting -= 1

    async def _poll(self, address: bytes, seconds: float) -> bytes:
        end_by = self._clock.monotonic() + seconds
        pauses = iter(_PAUSES)
        pause = 0.0
        while (ciphertext := await self._store.take(address)) is None:
            pause = next(pauses, pause)
            if self._clock.monotonic() + pause > end_by:
                raise ProvisioningEmpty(
                    "nothing was left at the address yet", retry_after=timedelta(seconds=pause)
                )
            await self._clock.sleep(pause)
        return ciphertext
