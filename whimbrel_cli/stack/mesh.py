"""A whole mesh on this machine: the stores and the instances of our services, as one thing."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mesh.tls import TlsSettings
from whimbrel_cli.stack.collector import TraceCollector
from whimbrel_cli.stack.description import Description, forget_mesh
from whimbrel_cli.stack.environment import (
    Environment,
    observed_folder,
    observing,
    pushes_file,
    tls_settings,
)
from whimbrel_cli.stack.errors import DidNotStart, StackError
from whimbrel_cli.stack.files import owned
from whimbrel_cli.stack.programs import Command, Program
from whimbrel_cli.stack.providers import PushProviders
from whimbrel_cli.stack.servers import Server, Status, start_all, stop_all
from whimbrel_cli.stack.services import PROBER, Service
from whimbrel_cli.stack.settings import OWN_SERVERS, StackSettings
from whimbrel_cli.stack.stack import build_stack


class Mesh:
    """Enter it to bring everything up, leave it to take everything down.

    async with Mesh(data, gateways=2, message=2, shards=2) as mesh:
        mesh.kill("message-1")
        await mesh.start("message-1")

    `env` are settings for every instance beside those that the mesh gives it; `env_of` are those
    of single instances, by name. `insecure`: the services speak plaintext with each other.
    `tls`: clients come by TLS, and trust `client_ca`.
    """

    def __init__(
        self,
        data: Path,
        *,
        gateways: int = 2,
        message: int = 2,
        shards: int = 2,
        presence: int = 0,
        media: int = 0,
        push: int = 0,
        kafka: bool = False,
        observe: bool = False,
        env: Mapping[str, str] | None = None,
        env_of: Mapping[str, Mapping[str, str]] | None = None,
        insecure: bool = False,
        tls: bool = False,
        settings: StackSettings = OWN_SERVERS,
    ) -> None:
        self.data = data.absolute()
        self.stack = build_stack(self.data, settings, with_media=bool(media), with_kafka=kafka)
        self.shards: dict[str, str] = {}  # DSN by name, once up
        self._shard_count = shards
        self._env = dict(env or {})
        self._env_of = dict(env_of or {})
        self._environment = Environment(self.data, self.stack, insecure=insecure, client_tls=tls)
        self._message = [self._instance("message", number) for number in range(1, message + 1)]
        self._gateways = [self._instance("gateway", number) for number in range(1, gateways + 1)]
        self._presence = [self._instance("presence", n) for n in range(1, presence + 1)]
        self._media = [self._instance("media", number) for number in range(1, media + 1)]
        self._push = [self._instance("push", number) for number in range(1, push + 1)]
        self.media_database = ""  # DSN, once up with media
        self.push_database = ""  # DSN, once up with push
        # Where pushes go in place of the real providers.
        self._providers = PushProviders(self.data / "push-providers", pushes_file(self.data))
        self._provider_server = Server(self._providers, log=self.log_of(self._providers.name))
        collector = TraceCollector(observed_folder(self.data))
        self._collector = Server(collector, log=self.log_of(collector.name)) if observe else None
        self._held = contextlib.ExitStack()

    @property
    def gateway_addresses(self) -> list[str]:
        """host:port of each gateway, for clients."""
        return [gateway.address for gateway in self._gateways]

    @property
    def client_ca(self) -> Path | None:
        """File with who certifies the gateways for clients; None: they come in the clear."""
        return self._environment.client_ca

    @property
    def message_addresses(self) -> list[str]:
        """host:port of each message instance's internal listener."""
        return [instance.address for instance in self._message]

    @property
    def presence_addresses(self) -> list[str]:
        """host:port of each presence instance's internal listener."""
        return [instance.address for instance in self._presence]

    @property
    def internal_addresses(self) -> dict[str, str]:
        """host:port of the first instance's internal listener, by service."""
        some = {
            "message": self._message,
            "presence": self._presence,
            "push": self._push,
            "media": self._media,
        }
        return {service: instances[0].address for service, instances in some.items() if instances}

    def statuses(self) -> list[Status]:
        """One for each process, whether it was started yet or not."""
        return [one.status() for one in (*self.stack.stores, *self._services)]

    def pid_of(self, name: str) -> int:
        return self._server(name).program.pid

    def exit_code_of(self, name: str) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._server(name).program.exit_code

    def log_of(self, name: str) -> Path:
        return self.data / "logs" / f"{name}.log"

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Send the process a signal and return at once; SIGSTOP and SIGCONT work too."""
        self._server(name).program.kill(with_signal)

    async def ended(self, name: str) -> None:
        """Wait until the process is gone."""
        await self._server(name).program.ended()

    async def stop(self, name: str) -> None:
        """End the process as a roll-out would: it may drain first."""
        await self._server(name).stop()

    async def start(self, name: str, *, env: Mapping[str, str] | None = None) -> None:
        """Start it again on the same port and wait until it is ready; `env` is its own from now."""
        if env is not None:
            self._env_of[name] = env
        await self._server(name).start()

    async def __aenter__(self) -> Self:
        self._held.enter_context(owned(self.data))
        try:
            await self._bring_up()
        except BaseException:
            await self._take_down()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._take_down()

    async def _bring_up(self) -> None:
        if self._collector is not None:
            await self._collector.start()
        await self.stack.start()
        for number in range(self._shard_count):
            dsn = await self.stack.create_database(f"shard_{number}", cluster=number)
            self.shards[f"shard-{number}"] = dsn
        self._environment.write(self.shards)
        await self._run_once("migrate", "svc_message", self._environment.of_migration())
        if self._media:
            self.media_database = await self.stack.create_database("media")
            stores = self._environment.of_media_stores(self.media_database)
            await self._run_once("prepare", "svc_media", stores)
        if self._push:
            self.push_database = await self.stack.create_database("push")
            store = self._environment.of_push_store(self.push_database)
            await self._run_once("prepare", "svc_push", store)
            await self._provider_server.start()
        await start_all([*self._media, *self._push])
        # Gateways are ready without a message instance, but then the first calls would wait.
        await start_all(self._message)
        await start_all(self._presence)
        await start_all(self._gateways)
        Description(
            pid=os.getpid(),
            gateways=self.gateway_addresses,
            message=self.message_addresses,
            shards=self.shards,
            redis=self.stack.redis_url,
            etcd=self.stack.etcd_endpoint,
            ca=str(self.client_ca or ""),
        ).write(self.data)

    async def _take_down(self) -> None:
        forget_mesh(self.data)
        await stop_all(self._gateways)
        await stop_all(self._presence)
        await stop_all(self._message)
        await stop_all([*self._media, *self._push])
        await self._provider_server.stop()
        await self.stack.stop()
        if self._collector is not None:
            await self._collector.stop()
        self._held.close()

    async def _run_once(self, command: str, package: str, env: Mapping[str, str]) -> None:
        """Run a service's command, and wait until it has ended well."""
        argv = [sys.executable, "-m", package, command]
        log = self.log_of(command)
        program = Program(Command(command, argv, log, env=env))
        program.start()
        await program.ended()
        if program.exit_code:
            raise DidNotStart(command, f"it ended with exit code {program.exit_code}", log)

    @property
    def _services(self) -> list[Server]:
        providers = [self._provider_server] if self._push else []
        return [
            *providers,
            *([self._collector] if self._collector else []),
            *self._media,
            *self._push,
            *self._message,
            *self._presence,
            *self._gateways,
        ]

    def _instance(self, service: str, number: int) -> Server:
        name = f"{service}-{number}"
        told: Mapping[str, Callable[[], Mapping[str, str]]] = {
            "message": self._environment.of_message,
            "gateway": self._environment.of_gateway,
            "presence": self._environment.of_presence,
            "media": lambda: self._environment.of_media(self.media_database),
            "push": lambda: self._environment.of_push(
                self.push_database, self._providers.credentials, self._provider_server.address
            ),
        }

        def prober() -> TlsSettings:
            return tls_settings(self.data, PROBER)

        def settings() -> dict[str, str]:
            seen = observing(service, self._collector.address) if self._collector else {}
            return {**told[service](), **seen, **self._env, **self._env_of.get(name, {})}

        return Server(
            Service(name, service, settings, prober, self.client_ca), log=self.log_of(name)
        )

    def _server(self, name: str) -> Server:
        for server in (*self._services, *self.stack.stores):
            if server.name == name and isinstance(server, Server):
                return server
        raise StackError(f"this mesh runs no {name!r}")
