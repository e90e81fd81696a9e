"""Builds an instance of the gateway, runs it, and takes it down in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import structlog

from mesh import logs
from mesh.auth import TokenSigner, TokenVerifier
from mesh.channels import Channels
from mesh.discovery import Discovery
from mesh.health import Health
from mesh.instances import Instance, new_instance_id
from mesh.keys import KeySet
from mesh.redis import open_redis
from mesh.server import CLIENT_LISTENER, bind, new_server, running
from mesh.service_auth import ServiceCredentials
from mesh.telemetry import Telemetry, open_telemetry
from svc_gateway.gateway import Gateway
from svc_gateway.registry import RedisRegistry
from svc_gateway.settings import Settings

log = structlog.get_logger(__name__)

SERVICE = "gateway"
_LAST_GRACE = timedelta(seconds=1)
_FIRST_INSTANCE_SECONDS = 2.0


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    instance_id = new_instance_id()
    logs.configure(level=settings.log_level, service=SERVICE, instance=instance_id)
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        telemetry = stack.enter_context(
            open_telemetry(settings.telemetry, service=SERVICE, instance_id=instance_id)
        )
        discovery = await stack.enter_async_context(
            Discovery(
                settings.etcd,
                prefix=settings.etcd_prefix,
                on_reachable=lambda is_well: health.dependency("etcd", is_well=is_well),
            )
        )
        gateway = await stack.enter_async_context(
            _open_gateway(settings, instance_id, health, telemetry)
        )
        discovery.watch("message").on_change(gateway.attach.instances_changed)
        discovery.watch("presence").on_change(gateway.presences.instances_changed)
        for name, channels in gateway.services.items():
            discovery.watch(name).on_change(channels.update)
        server = _server(settings, gateway, health, telemetry)
        address = bind(server, settings.listen)
        instance = Instance(
            instance_id,
            SERVICE,
            settings.advertise or address,
            settings.zone,
        )
        await _run(
            gateway, server, instance=instance, discovery=discovery, health=health, stop=stop
        )


def _server(
    settings: Settings, gateway: Gateway, health: Health, telemetry: Telemetry
) -> grpc.aio.Server:
    server = new_server(
        CLIENT_LISTENER, interceptors=telemetry.interceptors, reuse_port=settings.reuse_port
    )
    health.add_to(server)
    gateway.add_to(server)
    return server


async def _run(
    gateway: Gateway,
    server: grpc.aio.Server,
    *,
    instance: Instance,
    discovery: Discovery,
    health: Health,
    stop: asyncio.Event,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(gateway.run(), name="gateway")
        async with running(server, grace=_LAST_GRACE):
            await _until_attached(gateway)
            discovery.register(instance)
            health.ready()
            log.info("serving", address=instance.address)
            await stop.wait()
            health.draining()
            await discovery.withdraw()
            await gateway.drain()
        working.cancel()


async def _until_attached(gateway: Gateway) -> None:
    """Let no device come before the first message instance; but be ready without one, too."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_INSTANCE_SECONDS):
            await gateway.attach.attached.wait()


@contextlib.asynccontextmanager
async def _open_gateway(
    settings: Settings, instance_id: str, health: Health, telemetry: Telemetry
) -> AsyncIterator[Gateway]:
    channels = Channels()
    async with open_redis(settings.redis_url.get_secret_value()) as redis:
        gateway = Gateway(
            settings,
            instance_id=instance_id,
            channels=channels,
            credentials=_credentials(settings, instance_id),
            verifier=TokenVerifier(KeySet.load(settings.token_keys).public_keys),
            registry=RedisRegistry(
                redis,
                prefix=settings.redis_prefix,
                instance_id=instance_id,
                ttl=settings.registry_ttl,
            ),
            telemetry=telemetry,
            on_redis=lambda is_well: health.dependency("redis", is_well=is_well),
        )
        try:
            yield gateway
        finally:
            await gateway.close()
            await channels.close()


def _credentials(settings: Settings, instance_id: str) -> ServiceCredentials:
    keys = KeySet.load(settings.service_key)
    if keys.private_key is None:
        raise ValueError(f"{settings.service_key} holds no private key")
    signer = TokenSigner(keys.private_key, keys.key_id)
    return ServiceCredentials(signer, service=SERVICE, instance_id=instance_id)
