"""What the process of any service is made of beside its own parts, and how it comes and goes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import grpc
import structlog
from pydantic import field_validator

from mesh import logs
from mesh.access import AccessInterceptor
from mesh.auth import TokenSigner
from mesh.discovery import Discovery
from mesh.health import Health
from mesh.holding import BoundsInterceptor
from mesh.instances import Instance, new_instance_id
from mesh.keys import KeySet
from mesh.reflection import reflect
from mesh.server import HEALTH_LISTENER, INTERNAL_LISTENER, bind, new_server, running
from mesh.settings import Settings
from mesh.store_tls import PLAINTEXT, StoreTls, demand_good, files_problems
from mesh.telemetry import Telemetry, TelemetrySettings, open_telemetry
from mesh.tls import Identity, TlsSettings

log = structlog.get_logger(__name__)


class ServiceSettings(Settings):
    """The knobs that every service has."""

    listen: str
    """Address and port of the listener; port 0 takes a free one."""
    advertise: str = ""
    """Address that others reach it at; empty: the one it listens on."""
    zone: str = ""
    """Where it runs, for those who choose."""
    etcd: str = "127.0.0.1:2379"
    """Where etcd listens."""
    etcd_prefix: str = "/whimbrel"
    """What every key in etcd begins with."""
    etcd_tls: StoreTls = PLAINTEXT
    """TLS with etcd."""
    tls: TlsSettings = TlsSettings()
    """Who this instance is to other services."""
    health_listen: str = ""
    """Address and port of a plaintext listener that tells the instance's health and nothing else,
    for probes that have no certificate; empty: none."""
    drain: timedelta = timedelta(seconds=20)
    """What is in flight gets so long to end when the instance is taken down."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Traces and metrics."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @field_validator("tls")
    @classmethod
    def _tls_is_good(cls, tls: TlsSettings) -> TlsSettings:
        problems = tls.problems(cls.service_name())
        if problems:
            raise ValueError("; ".join(problems))
        return tls

    @field_validator("telemetry")
    @classmethod
    def _metrics_tls_is_good(cls, telemetry: TelemetrySettings) -> TelemetrySettings:
        tls = telemetry.prometheus_tls
        missing = ", ".join(tls.missing())
        problems = [f"{missing} missing"] if missing else []
        problems += files_problems(tls.ca, tls.certificate, tls.key)
        if problems:
            raise ValueError("; ".join(f"prometheus_tls: {problem}" for problem in problems))
        return telemetry

    _etcd_tls_is_good = field_validator("etcd_tls")(demand_good)

    @classmethod
    def service_name(cls) -> str:
        """The service that these are the settings of, by the names of its variables."""
        prefix = str(cls.model_config.get("env_prefix", ""))
        return prefix.removeprefix("WHIMBREL_").rstrip("_").lower()


@dataclass(frozen=True, slots=True)
class Process:
    """One instance of a service."""

    service: str
    instance_id: str
    settings: ServiceSettings
    health: Health
    telemetry: Telemetry
    discovery: Discovery
    identity: Identity

    def internal_server(self) -> grpc.aio.Server:
        """A server for whom the protos let call, known by certificate, within bounds.

        It tells an operator what it serves.
        """
        server = new_server(
            INTERNAL_LISTENER,
            interceptors=[
                *self.telemetry.interceptors,
                AccessInterceptor(is_secure=self.identity.is_secure),
                BoundsInterceptor(),
            ],
        )
        reflect(server)
        self.health.add_to(server)
        return server

    def bound(
        self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None
    ) -> Instance:
        """The instance as others find it; plaintext without credentials.

        Raises OSError for a port that is taken.
        """
        address = bind(server, self.settings.listen, credentials)
        return Instance(
            self.instance_id,
            self.service,
            self.settings.advertise or address,
            self.settings.zone,
        )

    @contextlib.asynccontextmanager
    async def serving(
        self,
        server: grpc.aio.Server,
        instance: Instance,
        *,
        grace: timedelta,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[None]:
        """Be found and ready inside the block; open calls get the grace at its end.

        `first`: what the running server waits for before that.
        """
        async with self._probed(), running(server, grace=grace):
            if first is not None:
                await first()
            self.discovery.register(instance)
            self.health.ready()
            log.info("serving", address=instance.address)
            yield

    @contextlib.asynccontextmanager
    async def _probed(self) -> AsyncIterator[None]:
        """Tell the health where probes ask, if they have a place of their own."""
        if not self.settings.health_listen:
            yield
            return
        server = new_server(HEALTH_LISTENER)
        self.health.add_to(server)
        address = bind(server, self.settings.health_listen)
        log.info("health is told", address=address)
        async with running(server, grace=timedelta()):
            yield

    async def withdraw(self) -> None:
        """Let no new calls come."""
        self.health.draining()
        await self.discovery.withdraw()


@contextlib.asynccontextmanager
async def opened(settings: ServiceSettings, service: str) -> AsyncIterator[Process]:
    """The process, with its logs, telemetry and its place in etcd."""
    instance_id, health = new_instance_id(), Health()
    logs.configure(level=settings.log_level, service=service, instance=instance_id)
    with open_telemetry(settings.telemetry, service=service, instance_id=instance_id) as telemetry:
        discovery = Discovery(
            settings.etcd,
            prefix=settings.etcd_prefix,
            tls=settings.etcd_tls,
            on_reachable=lambda is_well: health.dependency("etcd", is_well=is_well),
            telemetry=telemetry,
        )
        identity = Identity(settings.tls, service, telemetry=telemetry)
        if not identity.is_secure:
            log.warning("plaintext between services: callers are believed who they say they are")
        async with discovery, asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(identity.run(), name="certificates")
            yield Process(service, instance_id, settings, health, telemetry, discovery, identity)
            renewing.cancel()


def signer_of(key_file: Path) -> TokenSigner:
    """Who signs with the file's private key. Raises ValueError if it holds none."""
    keys = KeySet.load_signing(key_file)
    assert keys.private_key is not None  # noqa: S101  the type checker cannot see it
    return TokenSigner(keys.private_key, keys.key_id)
