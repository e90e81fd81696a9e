"""Builds svc_push, runs it until told to stop, and takes it down in reverse order."""

import asyncio
import contextlib
from datetime import timedelta

from mesh.clock import Clock, SystemClock
from mesh.failpoints import Failpoints
from mesh.postgres import open_pool
from mesh.redis import open_redis
from mesh.service import Process, opened
from mesh.tasks import periodically
from svc_push.jobs import Jobs, JobsUnavailable
from svc_push.model import Provider
from svc_push.providers.apns import Apns
from svc_push.providers.fcm import Fcm, ServiceAccount
from svc_push.providers.http import HttpClient
from svc_push.providers.key_files import load_p256_key
from svc_push.providers.webpush import WebPush
from svc_push.sealing import Seal
from svc_push.servicer import PushServicer
from svc_push.settings import Settings
from svc_push.store import TokenStore
from svc_push.tokens import Tokens
from svc_push.worker import Rings, Worker
from whimbrel.push.v1 import push_pb2_grpc

SERVICE = "push"
_REDIS_ANSWERS = timedelta(seconds=2)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Run the instance until `stop` is set."""
    clock = SystemClock()
    async with opened(settings, SERVICE) as process, contextlib.AsyncExitStack() as stack:
        jobs = await _open_jobs(settings, process, stack)
        store = await _open_store(settings, process, stack)
        providers = await open_providers(settings, clock, stack)
        tokens = Tokens(store, jobs, list(providers), keep=settings.keep_tokens, clock=clock)
        worker = Worker(
            jobs,
            store,
            providers,
            per_second=settings.provider_rate,
            clock=clock,
            telemetry=process.telemetry,
            failpoints=Failpoints(settings.failpoint),
            dead_after=settings.claim_after,
        )
        web_push = providers.get(Provider.WEB_PUSH)
        vapid_key = web_push.public_key if isinstance(web_push, WebPush) else None
        servicer = PushServicer(tokens, jobs, vapid_key)
        server = process.internal_server()
        push_pb2_grpc.add_PushServiceServicer_to_server(servicer, server)
        instance = process.bound(server, process.identity.server_credentials())
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(worker.run(), name="worker")
            sweeping = tasks.create_task(
                periodically(tokens.sweep, settings.sweep, name="sweep"), name="sweep"
            )
            async with process.serving(server, instance, grace=settings.drain):
                await stop.wait()
                await process.withdraw()
                servicer.end_streams()
            sweeping.cancel()
            worker.finish()
            # No request to a provider takes longer.
            await asyncio.wait([working], timeout=settings.drain.total_seconds())
            working.cancel()
        with contextlib.suppress(JobsUnavailable):
            await jobs.leave()


async def open_providers(
    settings: Settings, clock: Clock, stack: contextlib.AsyncExitStack
) -> dict[Provider, Rings]:
    """Those that the settings give access to. Raises ValueError for keys that are none."""
    ca = str(settings.provider_ca) if settings.provider_ca else None
    http = await stack.enter_async_context(HttpClient(ca=ca))
    keep = settings.keep_wake_ups
    providers: dict[Provider, Rings] = {}
    if settings.apns_key:
        providers[Provider.APNS] = Apns(
            http,
            clock,
            url=settings.apns_url,
            topic=settings.apns_topic,
            key=load_p256_key(settings.apns_key),
            key_id=settings.apns_key_id,
            team_id=settings.apns_team_id,
            keep=keep,
        )
    if settings.fcm_account:
        account = ServiceAccount.load(settings.fcm_account)
        providers[Provider.FCM] = Fcm(http, clock, url=settings.fcm_url, account=account, keep=keep)
    if settings.vapid_key:
        # Their URLs come from devices: they must not lead to our own servers.
        guarded = HttpClient(ca=ca, only_public=not settings.web_push_private)
        providers[Provider.WEB_PUSH] = WebPush(
            await stack.enter_async_context(guarded),
            clock,
            key=load_p256_key(settings.vapid_key),
            subject=settings.vapid_subject,
            keep=keep,
        )
    return providers


async def _open_jobs(
    settings: Settings, process: Process, stack: contextlib.AsyncExitStack
) -> Jobs:
    # A connection waits a second for jobs; the answer must not be given up before.
    redis = await stack.enter_async_context(
        open_redis(
            settings.redis_url.get_secret_value(),
            tls=settings.redis_tls,
            timeout=_REDIS_ANSWERS,
            client_name="svc_push",
        )
    )
    return Jobs(
        redis,
        prefix=settings.redis_prefix,
        consumer=process.instance_id,
        keep=settings.keep_wake_ups,
        quiet=settings.quiet,
        on_health=lambda is_well: process.health.dependency("redis", is_well=is_well),
    )


async def _open_store(
    settings: Settings, process: Process, stack: contextlib.AsyncExitStack
) -> TokenStore:
    pool = await stack.enter_async_context(
        open_pool(
            settings.dsn,
            size=settings.connections,
            application_name="svc_push",
            is_pooled=settings.direct_database is not None,
        )
    )
    return TokenStore(
        pool,
        Seal.load(settings.token_keys),
        lambda is_well: process.health.dependency("database", is_well=is_well),
    )
