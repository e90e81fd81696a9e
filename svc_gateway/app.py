"""Builds an instance of the gateway, runs it, and takes it down in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

from mesh.auth import TokenVerifier
from mesh.channels import Channels
from mesh.keys import KeySet
from mesh.limits import RedisBuckets
from mesh.redis import open_redis
from mesh.server import CLIENT_LISTENER, new_server
from mesh.service import Process, opened
from mesh.tls import ClientListener
from svc_gateway.gateway import Gateway
from svc_gateway.limits import OVERRIDES
from svc_gateway.registry import RedisRegistry
from svc_gateway.settings import Settings
from svc_gateway.shedding import SESSION_COUNTS, Board

SERVICE = "gateway"
_LAST_GRACE = timedelta(seconds=1)
_FIRST_INSTANCE_SECONDS = 2.0


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    async with opened(settings, SERVICE) as process, _opened(settings, process) as gateway:
        process.discovery.watch_value(OVERRIDES).on_change(gateway.limiter.override)
        process.discovery.watch("message").on_change(gateway.attach.instances_changed)
        process.discovery.watch("presence").on_change(gateway.presences.instances_changed)
        for name, channels in gateway.services.items():
            process.discovery.watch(name).on_change(channels.update)
        server = new_server(
            CLIENT_LISTENER,
            interceptors=process.telemetry.edge_interceptors,
            reuse_port=settings.reuse_port,
        )
        process.health.add_to(server)
        gateway.add_to(server)
        shown = ClientListener(settings.client_tls, telemetry=process.telemetry)
        instance = process.bound(server, shown.server_credentials())
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(gateway.run(), name="gateway")
            renewing = tasks.create_task(shown.run(), name="client-certificates")
            first = partial(_until_attached, gateway)
            async with process.serving(server, instance, grace=_LAST_GRACE, first=first):
                await stop.wait()
                await process.withdraw()
                await gateway.drain()
            working.cancel()
            renewing.cancel()


async def _until_attached(gateway: Gateway) -> None:
    """Let no device come before the first message instance; but be ready without one, too."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_INSTANCE_SECONDS):
            await gateway.attach.attached.wait()


@contextlib.asynccontextmanager
async def _opened(settings: Settings, process: Process) -> AsyncIterator[Gateway]:
    channels = Channels(process.identity)
    counts = process.discovery.watch_notes(SESSION_COUNTS)
    async with open_redis(settings.redis_url.get_secret_value(), tls=settings.redis_tls) as redis:
        gateway = Gateway(
            settings,
            instance_id=process.instance_id,
            channels=channels,
            identity=process.identity,
            verifier=TokenVerifier(KeySet.load(settings.token_keys).public_keys),
            registry=RedisRegistry(
                redis,
                prefix=settings.redis_prefix,
                instance_id=process.instance_id,
                ttl=settings.registry_ttl,
            ),
            buckets=RedisBuckets(redis, prefix=settings.redis_prefix),
            board=Board(
                notes=lambda: counts.notes,
                note=partial(process.discovery.note, SESSION_COUNTS),
            ),
            telemetry=process.telemetry,
            on_redis=lambda is_well: process.health.dependency("redis", is_well=is_well),
        )
        try:
            yield gateway
        finally:
            await gateway.close()
            await channels.close()
