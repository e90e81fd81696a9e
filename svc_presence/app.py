"""Builds svc_presence, runs it until told to stop, and takes it down in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import structlog

from mesh import logs
from mesh.access import AccessInterceptor
from mesh.auth import ServiceTokenVerifier, TokenSigner
from mesh.channels import Channels
from mesh.clock import SystemClock
from mesh.discovery import Discovery
from mesh.health import Health
from mesh.instances import Instance, new_instance_id
from mesh.keys import KeySet
from mesh.metrics import WATCHES
from mesh.redis import open_redis
from mesh.server import INTERNAL_LISTENER, bind, new_server, running
from mesh.service_auth import ServiceCredentials, ServiceTokenInterceptor
from mesh.tasks import supervised
from mesh.telemetry import Telemetry, open_telemetry
from svc_presence.audience import Audience
from svc_presence.peers import MessagePeer
from svc_presence.servicer import PresenceServicer
from svc_presence.settings import Settings
from svc_presence.store import RedisPresence
from svc_presence.tracker import Tracker

log = structlog.get_logger(__name__)

SERVICE = "presence"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    instance_id = new_instance_id()
    logs.configure(level=settings.log_level, service=SERVICE, instance=instance_id)
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        telemetry = stack.enter_context(
            open_telemetry(settings.telemetry, service=SERVICE, instance_id=instance_id)
        )
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
        store = RedisPresence(
            redis,
            prefix=settings.redis_prefix,
            keep=settings.keep_last_seen,
            on_reachable=lambda is_well: health.dependency("redis", is_well=is_well),
        )
        discovery = await stack.enter_async_context(
            Discovery(
                settings.etcd,
                prefix=settings.etcd_prefix,
                on_reachable=lambda is_well: health.dependency("etcd", is_well=is_well),
            )
        )
        peer = await stack.enter_async_context(_open_peer(settings, instance_id, discovery))
        tracker = _tracker(settings, store, peer)
        telemetry.gauge(WATCHES, lambda: len(tracker.watches))
        servicer = PresenceServicer(
            tracker,
            store,
            offline_after=settings.offline_after.total_seconds(),
            clock=SystemClock(),
        )
        server = _server(settings, servicer, health, telemetry)
        address = bind(server, settings.listen)
        instance = Instance(instance_id, SERVICE, settings.advertise or address, settings.zone)
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(supervised(tracker.run, name="tracker"), name="tracker")
            async with running(server, grace=settings.drain):
                discovery.register(instance)
                health.ready()
                log.info("serving", address=instance.address)
                await stop.wait()
                health.draining()
                await discovery.withdraw()
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
async def _open_peer(
    settings: Settings, instance_id: str, discovery: Discovery
) -> AsyncIterator[MessagePeer]:
    keys = KeySet.load(settings.service_key)
    if keys.private_key is None:
        raise ValueError(f"{settings.service_key} holds no private key")
    signer = TokenSigner(keys.private_key, keys.key_id)
    channels = Channels()
    discovery.watch("message").on_change(channels.update)
    try:
        yield MessagePeer(
            channels, ServiceCredentials(signer, service=SERVICE, instance_id=instance_id)
        )
    finally:
        await channels.close()


def _server(
    settings: Settings, servicer: PresenceServicer, health: Health, telemetry: Telemetry
) -> grpc.aio.Server:
    verifier = ServiceTokenVerifier(KeySet.load(settings.service_keys).public_keys, SERVICE)
    server = new_server(
        INTERNAL_LISTENER,
        interceptors=[
            *telemetry.interceptors,
            ServiceTokenInterceptor(verifier),
            AccessInterceptor(),
        ],
    )
    servicer.add_to(server)
    health.add_to(server)
    return server
