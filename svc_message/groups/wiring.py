"""The parts of groups, wired to each other."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from mesh.failpoints import Failpoints
from mesh.postgres import STORE_ERRORS, Pool
from mesh.redis import Redis
from mesh.telemetry import Telemetry
from svc_message.groups.accepting import GroupAccepting
from svc_message.groups.device_changes import DeviceChanges
from svc_message.groups.fanning import FanOut
from svc_message.groups.groups import Groups
from svc_message.groups.message_store import GroupMessageStore
from svc_message.groups.news import GroupNews
from svc_message.groups.servicer import GroupServicer
from svc_message.groups.store import GroupStore
from svc_message.groups.tallying import Tallies
from svc_message.identity.buckets import Buckets
from svc_message.identity.finding_store import FindingStore
from svc_message.media.references import References
from svc_message.relay import Relay
from svc_message.routing import Router
from svc_message.settings import Settings
from svc_message.shards.directory import Shards
from svc_message.trace_store import TraceStore

log = structlog.get_logger(__name__)

_AT_ONCE = 5_000
_GROUPS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class GroupParts:
    """What works for groups behind the servicers."""

    accepting: GroupAccepting
    fan_out: FanOut
    device_changes: DeviceChanges
    tallies: Tallies
    news: GroupNews
    stores: Mapping[str, GroupMessageStore]
    keep: timedelta

    async def sweep(self) -> None:
        """Forget, on each shard that can be reached, whose old messages were, and dead groups."""
        for name, store in self.stores.items():
            try:
                while await store.forget_messages(self.keep, _AT_ONCE) == _AT_ONCE:
                    pass
                while await store.forget_empty_groups(self.keep, _GROUPS_AT_ONCE):
                    pass
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=name, error=type(error).__name__)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for part in (
                self.accepting,
                self.fan_out,
                self.device_changes,
                self.tallies,
                self.news,
            ):
                tasks.create_task(part.run(), name=type(part).__name__.lower())

    async def drained(self) -> None:
        """Return when all that was taken is done."""
        await self.accepting.drained()
        await self.fan_out.drained()
        await self.tallies.drained()


def build_groups(
    settings: Settings,
    shards: Shards,
    pools: Mapping[str, Pool],
    router: Router,
    relay: Relay,
    *,
    references: References,
    telemetry: Telemetry,
    failpoints: Failpoints,
) -> GroupParts:
    """Wire what accepts groups' messages and fans them out."""
    stores = {name: GroupMessageStore(name, pool) for name, pool in pools.items()}
    fan_out = FanOut(
        shards,
        stores,
        {name: TraceStore(pool) for name, pool in pools.items()},
        router,
        lanes_per_shard=settings.lanes_per_shard,
        sweep=settings.relay_sweep,
        most_pending=settings.most_group_entries,
        telemetry=telemetry,
        failpoints=failpoints,
    )
    accepting = GroupAccepting(
        shards,
        stores,
        fan_out,
        references,
        lanes_per_shard=settings.lanes_per_shard,
        telemetry=telemetry,
        failpoints=failpoints,
    )
    tallies = Tallies(
        shards,
        pools,
        tell=router.tell,
        done=relay.settle_receipt,
        failed=relay.postpone_receipt,
        telemetry=telemetry,
    )
    relay.note_group = tallies.note
    return GroupParts(
        accepting,
        fan_out,
        DeviceChanges(shards, every=settings.relay_sweep, lists_fresh=settings.device_lists_fresh),
        tallies,
        GroupNews(GroupStore(shards), router),
        stores,
        settings.keep_messages,
    )


def build_group_service(
    shards: Shards, redis: Redis, news: GroupNews, *, redis_prefix: str, most_members: int
) -> GroupServicer:
    """Wire GroupService."""
    buckets = Buckets(redis, prefix=redis_prefix)
    groups = Groups(
        GroupStore(shards), FindingStore(shards), buckets, news, most_members=most_members
    )
    return GroupServicer(groups)
