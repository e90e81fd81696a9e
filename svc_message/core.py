"""The parts that work behind the servicers, wired to each other."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mesh.failpoints import Failpoints
from mesh.metrics import GATEWAYS, SHARD_UP
from mesh.postgres import Pool
from mesh.telemetry import Telemetry
from svc_message.accepting import Accepting
from svc_message.channels.wiring import ChannelParts, build_channels
from svc_message.groups.wiring import GroupParts, build_groups
from svc_message.inbox import Inbox
from svc_message.media.references import References
from svc_message.media.store import ReferenceStore
from svc_message.relay import Relay
from svc_message.routing import Registry, Router
from svc_message.settings import Settings
from svc_message.shards.directory import Shards
from svc_message.stock import Stock
from svc_message.store import ShardStore
from svc_message.sweeps import Sweeps


@dataclass(frozen=True, slots=True)
class Core:
    """Everything that messaging does, without a listener."""

    shards: Shards
    router: Router
    relay: Relay
    accepting: Accepting
    inbox: Inbox
    sweeps: Sweeps
    stock: Stock
    groups: GroupParts
    channels: ChannelParts
    references: References

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for part in (
                self.router,
                self.relay,
                self.accepting,
                self.inbox,
                self.groups,
                self.channels,
            ):
                tasks.create_task(part.run(), name=type(part).__name__.lower())

    async def drained(self) -> None:
        """Return when all that was taken is done."""
        for part in (self.accepting, self.inbox, self.relay, self.groups, self.channels):
            await part.drained()


def build_core(
    settings: Settings,
    pools: Mapping[str, Pool],
    registry: Registry,
    telemetry: Telemetry,
    *,
    on_health: Callable[[str, bool], None] | None = None,
) -> Core:
    """Wire the parts; `on_health` hears of shards that go and come back."""
    shards = Shards(pools, on_health)
    stores = {name: ShardStore(name, pool) for name, pool in pools.items()}
    router = Router(registry)
    failpoints = Failpoints(settings.failpoint)
    lanes = settings.lanes_per_shard
    references = References(
        {name: ReferenceStore(pool) for name, pool in pools.items()},
        keep=settings.keep_messages,
    )
    relay = Relay(
        shards,
        stores,
        router,
        lanes_per_shard=lanes,
        sweep=settings.relay_sweep,
        telemetry=telemetry,
        failpoints=failpoints,
    )
    accepting = Accepting(
        shards,
        stores,
        router,
        relay,
        lanes_per_shard=lanes,
        device_lists_fresh=settings.device_lists_fresh,
        first_contacts_a_day=settings.first_contacts_a_day,
        references=references,
        telemetry=telemetry,
        failpoints=failpoints,
    )
    inbox = Inbox(
        shards,
        stores,
        router,
        relay,
        lanes_per_shard=lanes,
        telemetry=telemetry,
        failpoints=failpoints,
    )
    groups = build_groups(
        settings,
        shards,
        pools,
        router,
        relay,
        references=references,
        telemetry=telemetry,
        failpoints=failpoints,
    )
    telemetry.gauge(GATEWAYS, lambda: len(router.gateways))
    for name in shards.names:
        telemetry.gauge(SHARD_UP, partial(_is_up, shards, name), {"shard": name})
    sweeps = Sweeps(shards, stores, keep=settings.keep_messages, telemetry=telemetry)
    return Core(
        shards,
        router,
        relay,
        accepting,
        inbox,
        sweeps,
        Stock(pools, telemetry),
        groups,
        build_channels(shards, router),
        references,
    )


def _is_up(shards: Shards, name: str) -> float:
    return 0.0 if shards.is_down(name) else 1.0
