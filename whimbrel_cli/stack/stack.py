"""The stores of a mesh, embedded or someone else's, brought up and down together."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from whimbrel_cli.stack.etcd import Etcd
from whimbrel_cli.stack.files import owned
from whimbrel_cli.stack.kafka import Kafka
from whimbrel_cli.stack.postgres import Postgres, ensure_database
from whimbrel_cli.stack.programs import State
from whimbrel_cli.stack.seaweed import Seaweed
from whimbrel_cli.stack.servers import Recipe, Server, Startable, Status, start_all, stop_all
from whimbrel_cli.stack.settings import OWN_SERVERS, StackSettings
from whimbrel_cli.stack.valkey import Valkey


class Store(Startable, Protocol):
    """A server that the mesh keeps something in."""

    @property
    def address(self) -> str:
        """Where clients find it; it may hold a password."""

    def status(self) -> Status: ...


class Existing:
    """A store that someone else runs: neither started nor stopped."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    def status(self) -> Status:
        return Status(self.name, State.READY, "an existing one")

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None


class Stack:
    """The stores. Their addresses are known once they have started."""

    def __init__(
        self,
        postgres: Sequence[Store],
        redis: Store,
        etcd: Store,
        *,
        s3: Store | None = None,
        kafka: Store | None = None,
    ) -> None:
        self._postgres = postgres
        self._redis = redis
        self._etcd = etcd
        self._s3 = s3
        self.kafka = kafka

    @property
    def stores(self) -> list[Store]:
        some = (self._s3, self.kafka)
        return [*self._postgres, self._redis, self._etcd, *filter(None, some)]

    @property
    def postgres_dsns(self) -> list[str]:
        """The maker's entry to each Postgres."""
        return [store.address for store in self._postgres]

    @property
    def redis_url(self) -> str:
        return self._redis.address

    @property
    def etcd_endpoint(self) -> str:
        return self._etcd.address

    @property
    def s3_url(self) -> str:
        """The bucket's, with its keys; empty if there is none."""
        return self._s3.address if self._s3 else ""

    async def create_database(
        self, name: str, *, cluster: int = 0, template: str = "template1"
    ) -> str:
        """Make the database if it is not there, and return its DSN."""
        dsn = self.postgres_dsns[cluster % len(self._postgres)]
        return await ensure_database(dsn, name, template=template)

    async def start(self) -> None:
        await start_all(self.stores)

    async def stop(self) -> None:
        await stop_all(self.stores)


@contextlib.asynccontextmanager
async def running_stack(
    data: Path, settings: StackSettings = OWN_SERVERS, *, with_media: bool = False
) -> AsyncIterator[Stack]:
    """Bring the stack up on the data directory; at the end, take down what was started."""
    with owned(data):
        stack = build_stack(data, settings, with_media=with_media)
        try:
            await stack.start()
            yield stack
        finally:
            await stack.stop()


def build_stack(
    data: Path, settings: StackSettings, *, with_media: bool = False, with_kafka: bool = False
) -> Stack:
    """Choose, store by store, between an own server and an existing one.

    The object store is there only `with_media`, the broker only `with_kafka`.
    """

    def store(name: str, existing: str | None, own: Recipe, port: int | None) -> Store:
        if existing:
            return Existing(name, existing)
        return Server(own, log=data / "logs" / f"{name}.log", port=port)

    s3_url = settings.s3_url.get_secret_value() if settings.s3_url else None
    s3 = store("seaweed", s3_url, Seaweed(data / "seaweed"), settings.s3_port)
    kafka = store("kafka", settings.kafka_bootstrap, Kafka(), settings.kafka_port)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
    return Stack(
        _postgres_stores(data, settings),
        store("valkey", redis_url, Valkey(data / "valkey"), settings.redis_port),
        store("etcd", settings.etcd_endpoint, Etcd(data / "etcd"), settings.etcd_port),
        s3=s3 if with_media else None,
        kafka=kafka if with_kafka else None,
    )


def _postgres_stores(data: Path, settings: StackSettings) -> list[Store]:
    if settings.postgres_dsn:
        return [Existing("postgres", settings.postgres_dsn.get_secret_value())]
    names = ["postgres", *(f"postgres-{n}" for n in range(2, settings.postgres_clusters + 1))]
    first = settings.postgres_port
    return [
        Server(
            Postgres(data / name, name=name, reachable=settings.postgres_reachable),
            log=data / "logs" / f"{name}.log",
            port=first and first + index,
        )
        for index, name in enumerate(names)
    ]
