"""The parts that have devices woken, wired to each other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh.channels import Channels
from mesh.clock import SystemClock
from mesh.discovery import Discovery
from mesh.redis import Redis
from mesh.tasks import periodically, supervised
from mesh.telemetry import Telemetry
from mesh.tls import Identity
from svc_message.pushing.link import NewsFeed
from svc_message.pushing.news import News
from svc_message.pushing.ringing import Ringing
from svc_message.pushing.store import WaitingStore
from svc_message.pushing.turns import Turns
from svc_message.routing import Router
from svc_message.settings import Settings
from svc_message.shards.directory import Shards
from svc_message.uplink import Uplink


@dataclass(frozen=True, slots=True)
class Pushing:
    """What has devices woken."""

    router: Router
    ringing: Ringing
    link: Uplink[Any]
    sweep: timedelta

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            # Whatever is wrong here, messages go on.
            for name, work in (
                ("push-link", self.link.run),
                ("ringing", lambda: self.ringing.run(self.router)),
            ):
                tasks.create_task(supervised(work, name=name), name=name)
            tasks.create_task(
                periodically(
                    lambda: self.ringing.sweep(self.router), self.sweep, name="push-sweep"
                ),
                name="push-sweep",
            )


@contextlib.asynccontextmanager
async def open_pushing(
    settings: Settings,
    shards: Shards,
    router: Router,
    redis: Redis,
    *,
    discovery: Discovery,
    identity: Identity,
    key: bytes,
    telemetry: Telemetry,
    on_health: Callable[[bool], None],
) -> AsyncIterator[Pushing]:
    """Wire them; the router tells of absent devices from now on. `key` chooses the instance."""
    news = News()
    channels, feed = Channels(identity), NewsFeed(news)
    discovery.watch(feed.service).on_change(channels.update)
    ringing = Ringing(
        {name: WaitingStore(shards.pool(name)) for name in shards.names},
        shards,
        news,
        Turns(redis, settings.redis_prefix),
        is_wanted=lambda: bool(channels.instances),
        after=settings.push_after,
        sweep=settings.push_sweep,
        clock=SystemClock(),
        telemetry=telemetry,
    )
    router.absences = ringing
    link = Uplink(feed, channels, key=key, on_health=on_health)
    try:
        yield Pushing(router, ringing, link, settings.push_sweep)
    finally:
        await channels.close()
