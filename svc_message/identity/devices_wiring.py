"""The parts behind DeviceService and KeyService, wired to each other."""

from dataclasses import dataclass
from datetime import timedelta

from mesh.auth import TokenSigner
from mesh.clock import Clock
from mesh.redis import Redis
from mesh.telemetry import Telemetry
from svc_message.identity.buckets import Buckets
from svc_message.identity.devices import Devices
from svc_message.identity.devices_store import DeviceStore
from svc_message.identity.keys import Keys
from svc_message.identity.keys_store import KeyStore
from svc_message.identity.provisioning import Provisioning
from svc_message.routing import Router
from svc_message.shards.directory import Shards


@dataclass(frozen=True, slots=True)
class DeviceParts:
    """What the servicers of devices and keys call."""

    devices: Devices
    provisioning: Provisioning
    keys: Keys
    idle_after: timedelta

    async def sweep(self) -> None:
        """Unlink idle devices, forget what was left for linking."""
        await self.devices.sweep(idle_after=self.idle_after)


def build_devices(
    shards: Shards,
    redis: Redis,
    signer: TokenSigner,
    router: Router,
    *,
    redis_prefix: str,
    token_lifetime: timedelta,
    idle_after: timedelta,
    telemetry: Telemetry,
    clock: Clock | None = None,
) -> DeviceParts:
    """Wire the rules of devices and keys."""
    store = DeviceStore(shards)
    devices = Devices(
        store, signer, revoke=router.revoke, clock=clock, token_lifetime=token_lifetime
    )
    keys = Keys(
        KeyStore(shards),
        Buckets(redis, prefix=redis_prefix),
        on_low=router.low_prekeys,
        telemetry=telemetry,
    )
    return DeviceParts(devices, Provisioning(store, clock=clock), keys, idle_after)
