"""Builds svc_media, runs it until told to stop, and takes it down in reverse order."""

import asyncio
import contextlib

import httpx

from mesh.clock import Clock, SystemClock
from mesh.postgres import Pool, open_pool
from mesh.service import opened
from mesh.tasks import periodically
from svc_media.allowance import Allowance
from svc_media.dependencies import OnHealth, silent
from svc_media.grants import Grants, Policy
from svc_media.objects import ObjectStore
from svc_media.retention import Retention
from svc_media.servicer import MediaServicer
from svc_media.settings import Settings
from svc_media.store import MediaStore
from svc_media.transport import transport
from whimbrel.media.v1 import media_pb2_grpc

SERVICE = "media"
_STORE_SECONDS = 4.0


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    async with opened(settings, SERVICE) as process, contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(
                settings.dsn,
                size=settings.connections,
                application_name="svc_media",
                is_pooled=settings.direct_database is not None,
            )
        )
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                timeout=_STORE_SECONDS,
                trust_env=False,
                transport=transport(settings.s3_ca, telemetry=process.telemetry),
            )
        )
        on_health = process.health.dependency
        grants, retention = build(settings, pool, http, SystemClock(), on_health=on_health)
        servicer = MediaServicer(grants, retention)
        server = process.internal_server()
        media_pb2_grpc.add_MediaServiceServicer_to_server(servicer, server)
        instance = process.bound(server, process.identity.server_credentials())
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(
                periodically(retention.sweep, settings.sweep, name="sweep"), name="sweep"
            )
            async with process.serving(server, instance, grace=settings.drain):
                await stop.wait()
                await process.withdraw()
                servicer.end_streams()
            sweeping.cancel()


def build(
    settings: Settings,
    pool: Pool,
    http: httpx.AsyncClient,
    clock: Clock,
    *,
    on_health: OnHealth = silent,
) -> tuple[Grants, Retention]:
    """Wire what works behind the servicer; `on_health` hears how the stores do."""
    store = MediaStore(pool, on_health)
    # The object store checks signatures by its own clock.
    objects = ObjectStore(settings.bucket, http, SystemClock(), on_health)
    grants = Grants(
        store,
        objects,
        settings.public_bucket,
        settings.edge,
        Allowance(settings.grants_at_once, settings.grant_each, clock),
        policy=Policy(settings.url_lifetime, settings.orphans, settings.quota),
        clock=clock,
    )
    return grants, Retention(store, objects, longest=settings.longest_kept, clock=clock)
