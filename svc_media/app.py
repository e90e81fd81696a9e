"""Builds svc_media, runs it until told to stop, and takes it down in reverse order."""

import asyncio
import contextlib

import grpc
import httpx
import structlog

from mesh import logs
from mesh.access import AccessInterceptor
from mesh.auth import ServiceTokenVerifier
from mesh.clock import Clock, SystemClock
from mesh.discovery import Discovery
from mesh.health import Health
from mesh.instances import Instance, new_instance_id
from mesh.keys import KeySet
from mesh.postgres import Pool, open_pool
from mesh.server import INTERNAL_LISTENER, bind, new_server, running
from mesh.service_auth import ServiceTokenInterceptor
from mesh.tasks import periodically
from mesh.telemetry import Telemetry, open_telemetry
from svc_media.allowance import Allowance
from svc_media.dependencies import OnHealth, silent
from svc_media.grants import Grants, Policy
from svc_media.objects import ObjectStore
from svc_media.retention import Retention
from svc_media.servicer import MediaServicer
from svc_media.settings import Settings
from svc_media.store import MediaStore
from whimbrel.media.v1 import media_pb2_grpc

log = structlog.get_logger(__name__)

SERVICE = "media"
_STORE_SECONDS = 4.0


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    instance_id = new_instance_id()
    logs.configure(level=settings.log_level, service=SERVICE, instance=instance_id)
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        telemetry = stack.enter_context(
            open_telemetry(settings.telemetry, service=SERVICE, instance_id=instance_id)
        )
        pool = await stack.enter_async_context(
            open_pool(
                settings.database.get_secret_value(),
                size=settings.connections,
                application_name="svc_media",
            )
        )
        http = await stack.enter_async_context(
            httpx.AsyncClient(timeout=_STORE_SECONDS, trust_env=False)
        )
        discovery = await stack.enter_async_context(
            Discovery(
                settings.etcd,
                prefix=settings.etcd_prefix,
                on_reachable=lambda is_well: health.dependency("etcd", is_well=is_well),
            )
        )
        grants, retention = build(settings, pool, http, SystemClock(), on_health=health.dependency)
        servicer = MediaServicer(grants, retention)
        server = _server(settings, servicer, health, telemetry)
        address = bind(server, settings.listen)
        instance = Instance(instance_id, SERVICE, settings.advertise or address, settings.zone)
        async with asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(
                periodically(retention.sweep, settings.sweep, name="sweep"), name="sweep"
            )
            async with running(server, grace=settings.drain):
                discovery.register(instance)
                health.ready()
                log.info("serving", address=instance.address)
                await stop.wait()
                health.draining()
                await discovery.withdraw()
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
    objects = ObjectStore(settings.bucket, http, clock, on_health)
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


def _server(
    settings: Settings, servicer: MediaServicer, health: Health, telemetry: Telemetry
) -> grpc.aio.Server:
    keys = KeySet.joined(
        KeySet.load(path) for path in (settings.service_keys, settings.message_keys)
    )
    verifier = ServiceTokenVerifier(keys.public_keys, SERVICE)
    server = new_server(
        INTERNAL_LISTENER,
        interceptors=[
            *telemetry.interceptors,
            ServiceTokenInterceptor(verifier),
            AccessInterceptor(),
        ],
    )
    media_pb2_grpc.add_MediaServiceServicer_to_server(servicer, server)
    health.add_to(server)
    return server
