"""Builds svc_message, runs it until told to stop, and takes it down in reverse order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import structlog

from mesh.channels import Channels
from mesh.clock import SystemClock
from mesh.health import Health
from mesh.postgres import open_pool
from mesh.redis import Redis, open_redis
from mesh.service import Process, opened, signer_of
from mesh.tasks import Work, periodically
from mesh.telemetry import Telemetry
from svc_message.channels.wiring import build_channel_service
from svc_message.core import Core, build_core
from svc_message.groups.wiring import build_group_service
from svc_message.identity.code_senders import CodeSender
from svc_message.identity.devices_servicer import add_to_server
from svc_message.identity.devices_wiring import DeviceParts, build_devices
from svc_message.identity.reports import Reports
from svc_message.identity.reports_servicer import ReportServicer
from svc_message.identity.reports_store import ReportStore
from svc_message.identity.servicer import Identity, IdentityServicer
from svc_message.identity.visibility import Visibility
from svc_message.identity.visibility_servicer import AudienceServicer
from svc_message.identity.visibility_store import VisibilityStore
from svc_message.identity.wiring import build_identity, open_sender
from svc_message.media.link import ReferenceFeed
from svc_message.pushing.wiring import Pushing, open_pushing
from svc_message.queue.settings import session_variables
from svc_message.queue.wiring import build_queue
from svc_message.registry import RedisRegistry
from svc_message.servicer import MessageServicer
from svc_message.settings import Settings
from svc_message.stock import STOCK_EVERY
from svc_message.uplink import Uplink
from whimbrel.identity.v1 import identity_pb2_grpc
from whimbrel.message.v1 import message_pb2_grpc

log = structlog.get_logger(__name__)

SERVICE = "message"
_LAST_GRACE = timedelta(seconds=1)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    async with opened(settings, SERVICE) as process, contextlib.AsyncExitStack() as stack:
        health, telemetry = process.health, process.telemetry
        redis = await stack.enter_async_context(
            open_redis(settings.redis_url.get_secret_value(), tls=settings.redis_tls)
        )
        core = await stack.enter_async_context(_open_core(settings, redis, health, telemetry))
        await core.shards.read_maps()
        if telemetry.is_on:
            await core.stock.round()
        for shard in core.shards.names:
            health.dependency(f"shard/{shard}", is_well=not core.shards.is_down(shard))
        sender = await stack.enter_async_context(open_sender(settings))
        identity, devices = _identity(settings, core, redis, sender, telemetry)
        messages = MessageServicer(
            core.accepting,
            core.groups.accepting,
            core.inbox,
            core.router,
            identity.accounts.ensure_service_account,
            following=core.channels.following,
            clock=SystemClock(),
            telemetry=telemetry,
        )
        server = process.internal_server()
        message_pb2_grpc.add_MessageServiceServicer_to_server(messages, server)
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityServicer(identity), server)
        add_to_server(devices, server)
        build_group_service(
            core.shards,
            redis,
            core.groups.news,
            redis_prefix=settings.redis_prefix,
            most_members=settings.most_group_members,
        ).add_to(server)
        build_channel_service(
            core.channels, redis, redis_prefix=settings.redis_prefix, telemetry=telemetry
        ).add_to(server)
        AudienceServicer(Visibility(VisibilityStore(core.shards))).add_to(server)
        reports = Reports(
            ReportStore(core.shards),
            most_a_day=settings.reports_a_day,
            keep=settings.keep_reports,
        )
        ReportServicer(reports).add_to(server)
        queue = build_queue(
            settings,
            core.shards,
            core.groups,
            telemetry,
            instance_id=process.instance_id,
            on_health=lambda is_well: health.dependency("kafka", is_well=is_well),
        )
        queue.servicer.add_to(server)
        instance = process.bound(server, process.identity.server_credentials())
        link = await stack.enter_async_context(_open_media_link(process, core))
        pushing = await stack.enter_async_context(_open_pushing(settings, process, core, redis))
        async with asyncio.TaskGroup() as tasks:
            sweeps = {
                "sweeps": core.sweeps.round,
                "identity-sweep": identity.sweep.round,
                "device-sweep": devices.sweep,
                "report-sweep": reports.sweep,
                "group-sweep": core.groups.sweep,
                "channel-sweep": core.channels.sweep,
            }
            working = [
                tasks.create_task(core.run(), name="core"),
                tasks.create_task(link.run(), name="media-link"),
                tasks.create_task(pushing.run(), name="pushing"),
                tasks.create_task(queue.run(), name="queue"),
                *_sweeping(tasks, settings.sweep, sweeps),
                *_sweeping(
                    tasks, STOCK_EVERY, {"stock": core.stock.round} if telemetry.is_on else {}
                ),
            ]
            async with process.serving(server, instance, grace=_LAST_GRACE):
                await stop.wait()
                await _drain(settings, process, core, messages)
            for task in working:
                task.cancel()


def _identity(
    settings: Settings,
    core: Core,
    redis: Redis,
    sender: CodeSender | None,
    telemetry: Telemetry,
) -> tuple[Identity, DeviceParts]:
    signer = signer_of(settings.token_key)
    identity = build_identity(
        core.shards,
        redis,
        signer,
        core.router,
        sender,
        redis_prefix=settings.redis_prefix,
        demands_number=settings.registration == "code",
        token_lifetime=settings.token_lifetime,
    )
    devices = build_devices(
        core.shards,
        redis,
        signer,
        core.router,
        redis_prefix=settings.redis_prefix,
        token_lifetime=settings.token_lifetime,
        idle_after=settings.unlink_idle_after,
        telemetry=telemetry,
    )
    return identity, devices


def _sweeping(
    tasks: asyncio.TaskGroup, every: timedelta, rounds: Mapping[str, Work]
) -> list[asyncio.Task[None]]:
    return [
        tasks.create_task(periodically(work, every, name=name), name=name)
        for name, work in rounds.items()
    ]


@contextlib.asynccontextmanager
async def _open_core(
    settings: Settings, redis: Redis, health: Health, telemetry: Telemetry
) -> AsyncIterator[Core]:
    async with contextlib.AsyncExitStack() as stack:
        pools = {
            name: await stack.enter_async_context(
                open_pool(
                    dsn,
                    size=settings.connections_per_shard,
                    application_name="svc_message",
                    variables=session_variables(settings.events),
                    is_pooled=settings.direct_shards is not None,
                )
            )
            for name, dsn in settings.dsns.items()
        }
        yield build_core(
            settings,
            pools,
            RedisRegistry(redis, settings.redis_prefix),
            telemetry,
            on_health=lambda shard, is_well: health.dependency(f"shard/{shard}", is_well=is_well),
        )


@contextlib.asynccontextmanager
async def _open_media_link(process: Process, core: Core) -> AsyncIterator[Uplink[Any]]:
    """What tells the media service, where there is one."""
    channels, feed = Channels(process.identity), ReferenceFeed(core.references)
    process.discovery.watch(feed.service).on_change(channels.update)
    try:
        yield Uplink(
            feed,
            channels,
            key=process.instance_id.encode(),
            on_health=lambda is_well: process.health.dependency("media", is_well=is_well),
        )
    finally:
        await channels.close()


@contextlib.asynccontextmanager
async def _open_pushing(
    settings: Settings, process: Process, core: Core, redis: Redis
) -> AsyncIterator[Pushing]:
    """What has devices woken."""
    async with open_pushing(
        settings,
        core.shards,
        core.router,
        redis,
        discovery=process.discovery,
        identity=process.identity,
        key=process.instance_id.encode(),
        telemetry=process.telemetry,
        on_health=lambda is_well: process.health.dependency("push", is_well=is_well),
    ) as pushing:
        yield pushing


async def _drain(
    settings: Settings, process: Process, core: Core, messages: MessageServicer
) -> None:
    """Take no new work, end what was begun, let the gateways go elsewhere."""
    await process.withdraw()
    try:
        async with asyncio.timeout(settings.drain.total_seconds()):
            await core.drained()
            await messages.end_streams()
            await core.drained()
    except TimeoutError:
        log.warning("drain ran out of time")
