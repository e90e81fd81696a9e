"""Builds svc_presence, runs it until told to stop, and takes it down in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mesh.channels import Channels
from mesh.clock import SystemClock
from mesh.metrics import WATCHES
from mesh.redis import open_redis
from mesh.service import Process, opened
from mesh.tasks import supervised
from svc_presence.audience import Audience
from svc_presence.peers import MessagePeer
from svc_presence.servicer import PresenceServicer
from svc_presence.settings import Settings
from svc_presence.store import RedisPresence
from svc_presence.tracker import Tracker

SERVICE = "presence"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    async with opened(settings, SERVICE) as process, contextlib.AsyncExitStack() as stack:
        redis = await stack.enter_async_context(
            open_redis(settings.redis_url.get_secret_value(), tls=settings.redis_tls)
        )
        store = RedisPresence(
            redis,
            prefix=settings.redis_prefix,
            keep=settings.keep_last_seen,
            on_reachable=lambda is_well: process.health.dependency("redis", is_well=is_well),
        )
        peer = await stack.enter_async_context(_open_peer(process))
        tracker = _tracker(settings, store, peer)
        process.telemetry.gauge(WATCHES, lambda: len(tracker.watches))
        servicer = PresenceServicer(
            tracker,
            store,
            offline_after=settings.offline_after.total_seconds(),
            clock=SystemClock(),
        )
        server = process.internal_server()
        servicer.add_to(server)
        instance = process.bound(server, process.identity.server_credentials())
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(supervised(tracker.run, name="tracker"), name="tracker")
            async with process.serving(server, instance, grace=settings.drain):
                await stop.wait()
                await process.withdraw()
                servicer.end_streams()
            working.cancel()


def _tracker(settings: Settings, store: RedisPresence, peer: MessagePeer) -> Tracker:
    clock = SystemClock()
    return Tracker(
        store,
        Audience(peer.check, fresh=settings.audience_fresh, clock=clock),
        offline_after=settings.offline_after,
        most_watches=settings.most_watches,
        clock=clock,
    )


@contextlib.asynccontextmanager
async def _open_peer(process: Process) -> AsyncIterator[MessagePeer]:
    channels = Channels(process.identity)
    process.discovery.watch("message").on_change(channels.update)
    try:
        yield MessagePeer(channels)
    finally:
        await channels.close()
