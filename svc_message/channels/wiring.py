"""The parts of channels, wired to each other."""

import asyncio
from dataclasses import dataclass

import structlog

from mesh.postgres import STORE_ERRORS
from mesh.redis import Redis
from mesh.telemetry import Telemetry
from svc_message.channels.channels import ChannelRules
from svc_message.channels.counting import SubscriberCounts
from svc_message.channels.following import Following
from svc_message.channels.servicer import ChannelServicer
from svc_message.channels.store import ChannelStore
from svc_message.channels.telling import ChannelNews
from svc_message.channels.timeline import Timelines
from svc_message.groups.store import GroupStore
from svc_message.identity.buckets import Buckets
from svc_message.routing import Router
from svc_message.shards.directory import Shards

log = structlog.get_logger(__name__)

_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class ChannelParts:
    """What works for channels behind the servicers."""

    shards: Shards
    store: ChannelStore
    following: Following
    counts: SubscriberCounts
    news: ChannelNews

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.counts.run(), name="subscriber-counts")
            tasks.create_task(self.news.run(), name="channel-news")

    async def sweep(self) -> None:
        """Forget, on each shard that can be reached, the posts whose time is over."""
        for shard in self.shards.names:
            try:
                while await self.store.forget_posts(shard, _AT_ONCE) == _AT_ONCE:
                    pass
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)

    async def drained(self) -> None:
        """Return when all that was counted is written."""
        await self.counts.flush()


def build_channels(shards: Shards, router: Router) -> ChannelParts:
    """Wire what answers gateways and tells them."""
    store = ChannelStore(shards)
    return ChannelParts(
        shards, store, Following(store), SubscriberCounts(store), ChannelNews(router)
    )


def build_channel_service(
    parts: ChannelParts, redis: Redis, *, redis_prefix: str, telemetry: Telemetry
) -> ChannelServicer:
    """Wire ChannelService."""
    rules = ChannelRules(
        parts.store,
        GroupStore(parts.shards),
        Buckets(redis, prefix=redis_prefix),
        Timelines(parts.store),
        counts=parts.counts,
        news=parts.news,
        telemetry=telemetry,
    )
    return ChannelServicer(rules)
