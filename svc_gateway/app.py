"""Builds an instance of the gateway, runs it, and takes it down in reverse order."""

import asyncio
import contextlib
from datetime import timedelta
from secrets import token_hex

import structlog

from mesh import logs
from mesh.auth import TokenSigner, TokenVerifier
from mesh.channels import Channels
from mesh.discovery import Discovery
from mesh.health import Health
from mesh.instances import Instance
from mesh.keys import KeySet
from mesh.server import CLIENT_LISTENER, bind, new_server, running
from mesh.service_auth import ServiceCredentials
from svc_gateway.gateway import Gateway
from svc_gateway.settings import Settings

log = structlog.get_logger(__name__)

SERVICE = "gateway"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    instance_id = f"gateway-{token_hex(6)}"
    logs.configure(level=settings.log_level, service=SERVICE, instance=instance_id)
    async with contextlib.AsyncExitStack() as stack:
        credentials = _credentials(settings, instance_id)
        discovery = await stack.enter_async_context(
            Discovery(settings.etcd, prefix=settings.etcd_prefix)
        )
        channels = Channels()
        stack.push_async_callback(channels.close)
        gateway = Gateway(
            settings,
            instance_id=instance_id,
            channels=channels,
            credentials=credentials,
            verifier=TokenVerifier(KeySet.load(settings.token_keys).public_keys),
        )
        discovery.watch("message").on_change(gateway.attach.instances_changed)
        server = new_server(CLIENT_LISTENER, reuse_port=settings.reuse_port)
        gateway.servicer.add_to(server)
        health = Health()
        health.add_to(server)
        address = bind(server, settings.listen)
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(gateway.run(), name="gateway")
            async with running(server, grace=timedelta(seconds=1)):
                discovery.register(
                    Instance(instance_id, SERVICE, settings.advertise or address, settings.zone)
                )
                health.ready()
                log.info("serving", address=address)
                await stop.wait()
            working.cancel()


def _credentials(settings: Settings, instance_id: str) -> ServiceCredentials:
    keys = KeySet.load(settings.service_key)
    if keys.private_key is None:
        raise ValueError(f"{settings.service_key} holds no private key")
    signer = TokenSigner(keys.private_key, keys.key_id)
    return ServiceCredentials(signer, service=SERVICE, instance_id=instance_id)
