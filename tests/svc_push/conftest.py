"""The push service without its listener, against real stores and the providers' simulators."""

import asyncio
import contextlib
import json
import os
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mesh.clock import SystemClock
from mesh.failpoints import Failpoints
from mesh.ids import new_ulid
from mesh.migrations import apply, migrations_of
from mesh.postgres import fetch, open_pool
from mesh.redis import open_redis
from mesh.telemetry import OFF
from svc_push.app import open_providers
from svc_push.jobs import Jobs, Wake
from svc_push.model import Device, Provider, Subscription
from svc_push.sealing import Seal
from svc_push.settings import Settings
from svc_push.store import TokenStore
from svc_push.tokens import Tokens
from svc_push.worker import Worker
from whimbrel_cli.providers.simulators import Simulators, running_simulators
from whimbrel_cli.stack.postgres import drop_database, ensure_database

QUIET = timedelta(minutes=20)


@pytest.fixture(scope="session")
def credentials(tmp_path_factory) -> Path:
    """Where the simulators' keys are, made once."""
    return tmp_path_factory.mktemp("providers")


@dataclass
class Found:
    """Running simulators, and what the service's settings are told of them."""

    simulators: Simulators
    told: dict[str, str]

    @property
    def apns(self):
        return self.simulators.apns

    @property
    def fcm(self):
        return self.simulators.fcm

    @property
    def web_push(self):
        return self.simulators.web_push

    @property
    def arrivals(self):
        return self.simulators.arrivals

    def settings(self, **more) -> Settings:
        told = {name.removeprefix("WHIMBREL_PUSH_").lower(): v for name, v in self.told.items()}
        keys = Path(self.told["WHIMBREL_PUSH_PROVIDER_CA"])
        return Settings(
            **{
                "database": "unused",
                "tls": {"insecure": True},
                "token_keys": keys,
                **told,
                **more,
            }
        )

    def subscription(self) -> tuple[str, Subscription]:
        """A new device's, and its path at the push server."""
        subscribed = self.web_push.subscribe()
        endpoint = self.web_push.origin + subscribed.path
        return subscribed.path, Subscription(endpoint, subscribed.p256dh, subscribed.auth)


@pytest.fixture
async def providers(credentials) -> AsyncIterator[Found]:
    async with running_simulators(credentials) as (simulators, told):
        yield Found(simulators, dict(told))


@pytest.fixture(scope="session")
def _kept_database(stack) -> Iterator[str]:
    """One for all tests of a worker: making it takes longer than most of them."""
    name = f"test_push_{uuid.uuid4().hex}"

    async def make() -> str:
        dsn = await ensure_database(stack.postgres_dsn, name)
        await apply("push", dsn, migrations_of("svc_push"))
        return dsn

    yield asyncio.run(make())
    asyncio.run(drop_database(stack.postgres_dsn, name))


@pytest.fixture
async def push_database(_kept_database) -> str:
    """The DSN of a database without a token."""
    async with open_pool(_kept_database, size=1, application_name="test") as pool:
        await fetch(pool, "TRUNCATE push_token")
    return _kept_database


@pytest.fixture
def token_keys(tmp_path) -> Path:
    path = tmp_path / "token-keys.json"
    path.write_text(json.dumps({"k1": os.urandom(32).hex()}))
    return path


@pytest.fixture
async def store(push_database, token_keys) -> AsyncIterator[TokenStore]:
    async with open_pool(push_database, size=4, application_name="test") as pool:
        yield TokenStore(pool, Seal.load(token_keys))


@pytest.fixture
async def redis(redis_url):
    async with open_redis(redis_url, timeout=timedelta(seconds=5)) as redis:
        await redis.flushdb()
        yield redis


def jobs_of(redis, consumer="one", *, keep=timedelta(days=1), quiet=QUIET) -> Jobs:
    return Jobs(redis, prefix="test:", consumer=consumer, keep=keep, quiet=quiet)


@pytest.fixture
def jobs(redis) -> Jobs:
    return jobs_of(redis)


@dataclass
class Service:
    """What devices and message instances ask of the service."""

    tokens: Tokens
    jobs: Jobs
    store: TokenStore

    async def wake(self, device: Device, *, epoch=1, acked=0, is_urgent=True) -> None:
        await self.jobs.wake([Wake(device, epoch, acked, is_urgent)])


@pytest.fixture
async def service(providers, store, jobs) -> AsyncIterator[Service]:
    """At work."""
    async with running_worker(providers, store, jobs) as service:
        yield service


@contextlib.asynccontextmanager
async def running_worker(
    providers, store, jobs, *, dead_after=timedelta(seconds=25), **settings
) -> AsyncIterator[Service]:
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        rings = await open_providers(providers.settings(**settings), clock, stack)
        worker = Worker(
            jobs,
            store,
            rings,
            per_second=500,
            clock=clock,
            telemetry=OFF,
            failpoints=Failpoints(),
            dead_after=dead_after,
            chance=random.Random(1),
        )
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(worker.run())
            tokens = Tokens(store, jobs, list(Provider), keep=timedelta(days=90), clock=clock)
            yield Service(tokens, jobs, store)
            working.cancel()


def a_device() -> Device:
    return Device(new_ulid(), 1)


def now() -> datetime:
    return datetime.now(UTC)
