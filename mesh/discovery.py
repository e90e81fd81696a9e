"""Who is there: instances register in etcd under a lease and watch those they call.

While etcd is away everything goes on with what was last known; when it is back, the instance
registers again and reads everything afresh.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
import structlog

from mesh.backoff import Backoff
from mesh.clock import Clock, SystemClock
from mesh.errors import Unavailable
from mesh.etcd import Etcd, after_all
from mesh.instances import Instance
from mesh.replica import Entries, Replica
from mesh.store_tls import PLAINTEXT, StoreTls
from mesh.telemetry import OFF, Telemetry

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=10)
_TIMEOUT = timedelta(seconds=2)
_LONGEST_PAUSE = timedelta(seconds=1)


class ServiceView:
    """The instances of one service, as last known."""

    def __init__(self, service: str, replica: Replica) -> None:
        self._service = service
        self._replica = replica
        self._instances: dict[str, Instance] = {}
        self.synced = asyncio.Event()
        replica.on_change(self._read)

    @property
    def instances(self) -> Mapping[str, Instance]:
        """By instance id; a change makes a new mapping."""
        return self._instances

    @property
    def version(self) -> int:
        """Greater after each change."""
        return self._replica.version

    def on_change(self, listener: Callable[[Mapping[str, Instance]], None]) -> None:
        """Call it now and after each change."""
        self._replica.on_change(lambda _entries: listener(self._instances))

    def _read(self, entries: Entries) -> None:
        instances = {}
        for instance_id, value in entries.items():
            try:
                instances[instance_id] = Instance.from_json(instance_id, self._service, value)
            except ValueError:
                log.warning("unreadable instance", service=self._service, instance=instance_id)
        self._instances = instances


class ValueView:
    """One value of the registry, as last known; its writer puts a version into it."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.synced = asyncio.Event()

    @property
    def value(self) -> bytes | None:
        """None: it was never there, as far as is known."""
        return self._replica.entries.get("")

    def on_change(self, listener: Callable[[bytes | None], None]) -> None:
        """Call it now and after each change."""
        self._replica.on_change(lambda entries: listener(entries.get("")))


class NotesView:
    """What the instances that are there have noted under one name, as last known."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.synced = asyncio.Event()

    @property
    def notes(self) -> Mapping[str, bytes]:
        """By instance id; a change makes a new mapping."""
        return self._replica.entries

    def on_change(self, listener: Callable[[Mapping[str, bytes]], None]) -> None:
        """Call it now and after each change."""
        self._replica.on_change(listener)


class Discovery:
    """Registers this instance and follows others; enter it to start, leave it to withdraw.

    Nothing here fails because etcd is away: it tries again, at most a second apart.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        prefix: str = "/whimbrel",
        tls: StoreTls = PLAINTEXT,
        lease: timedelta = _LEASE,
        timeout: timedelta = _TIMEOUT,
        clock: Clock | None = None,
        on_reachable: Callable[[bool], None] | None = None,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._telemetry = telemetry
        self._prefix = prefix.rstrip("/")
        self._lease_seconds = int(lease.total_seconds())
        self._timeout = timeout.total_seconds()
        self._clock = clock or SystemClock()
        self._on_reachable = on_reachable
        self._is_reachable: bool | None = None
        self._lease_id = 0
        self._instance_id = ""
        self._notes: dict[str, bytes] = {}
        self._registering: asyncio.Task[None] | None = None
        self._tasks = asyncio.TaskGroup()
        self._following: list[asyncio.Task[None]] = []
        self.registered = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._etcd = Etcd(self._endpoint, self._tls, self._timeout, self._telemetry)
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.withdraw()
        finally:
            for task in self._following:
                task.cancel()
            await self._tasks.__aexit__(None, None, None)
            await self._etcd.close()

    def register(self, instance: Instance) -> None:
        """Keep the instance in the registry until `withdraw`; see `registered`."""
        if self._registering is not None:
            raise RuntimeError("this instance is registered already")
        key = f"{self._prefix}/instances/{instance.service}/{instance.instance_id}"
        self._instance_id = instance.instance_id
        keeping = self._keep_registered(key, instance.to_json())
        self._registering = self._tasks.create_task(keeping, name="register")

    async def note(self, name: str, value: bytes) -> None:
        """Tell a value of this instance beside its entry, for as long as that is there.

        An instance that is not registered, or is again after a while, tells it then. Raises
        Unavailable.
        """
        self._notes[name] = value
        if not self.registered.is_set():
            return
        try:
            await self._etcd.put(self._note_key(name), value, lease_id=self._lease_id)
        except grpc.aio.AioRpcError as error:
            raise Unavailable("the registry cannot be reached") from error

    async def withdraw(self) -> None:
        """Leave the registry: callers look elsewhere while this instance drains."""
        if self._registering is None:
            return
        self._registering.cancel()
        await asyncio.wait([self._registering])
        self._registering = None
        self.registered.clear()
        if self._lease_id:
            with contextlib.suppress(grpc.aio.AioRpcError):  # then the lease ends by itself
                await self._etcd.revoke(self._lease_id)

    def watch(self, service: str) -> ServiceView:
        """Follow the instances of a service."""
        prefix = f"{self._prefix}/instances/{service}/"
        replica = Replica(grace=self._lease_seconds)
        view = ServiceView(service, replica)
        self._follow(prefix, after_all(prefix), replica, view.synced)
        return view

    def watch_value(self, name: str) -> ValueView:
        """Follow one value, such as a map of shards."""
        replica = Replica(grace=self._lease_seconds)
        view = ValueView(replica)
        self._follow(f"{self._prefix}/{name}", b"", replica, view.synced)
        return view

    def watch_notes(self, name: str) -> NotesView:
        """Follow what instances have noted under a name."""
        prefix = f"{self._prefix}/{name}/"
        replica = Replica(grace=self._lease_seconds)
        view = NotesView(replica)
        self._follow(prefix, after_all(prefix), replica, view.synced)
        return view

    async def put_value(self, name: str, value: bytes) -> None:
        """Write a value for all who watch it; raises Unavailable."""
        try:
            await self._etcd.put(f"{self._prefix}/{name}", value)
        except grpc.aio.AioRpcError as error:
            raise Unavailable("the registry cannot be reached") from error

    def _note_key(self, name: str) -> str:
        return f"{self._prefix}/{name}/{self._instance_id}"

    def _follow(self, prefix: str, end: bytes, replica: Replica, synced: asyncio.Event) -> None:
        following = self._keep_following(prefix, end, replica, synced)
        self._following.append(self._tasks.create_task(following, name=f"follow-{prefix}"))

    async def _keep_registered(self, key: str, value: bytes) -> None:
        async def register() -> None:
            self._lease_id = await self._etcd.grant(self._lease_seconds)
            await self._etcd.put(key, value, lease_id=self._lease_id)
            told: dict[str, bytes] = {}
            while told != self._notes:  # one may be noted while others are told
                told = dict(self._notes)
                for name, note in told.items():
                    await self._etcd.put(self._note_key(name), note, lease_id=self._lease_id)
            self._tell_reachable(is_reachable=True)
            self.registered.set()
            log.info("registered", key=key)
            await self._keep_alive()
            self.registered.clear()
            log.warning("the lease was lost: registering again", key=key)

        await self._persist(register)

    async def _keep_alive(self) -> None:
        # Until the lease is gone. An error on the way says nothing about it: ask again.
        async def refresh() -> None:
            while await self._etcd.refresh(self._lease_id):
                self._tell_reachable(is_reachable=True)
                await self._clock.sleep(self._lease_seconds / 3)
            raise _LeaseLost

        with contextlib.suppress(_LeaseLost):
            await self._persist(refresh)

    async def _keep_following(
        self, prefix: str, end: bytes, replica: Replica, synced: asyncio.Event
    ) -> None:
        async def follow() -> None:
            entries, revision = await self._etcd.read(prefix, end)
            replica.replace(entries, self._clock.monotonic())
            self._tell_reachable(is_reachable=True)
            synced.set()
            # What the read did not show is looked for once more before it is believed gone.
            within = float(self._lease_seconds) if replica.is_doubtful else None
            with contextlib.suppress(TimeoutError):
                async with (
                    asyncio.timeout(within),
                    contextlib.aclosing(
                        self._etcd.changes(prefix, end, revision + 1)
                    ) as all_changes,
                ):
                    async for changes in all_changes:
                        replica.apply(changes)

        await self._persist(follow)

    async def _persist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again whenever it ends, after a pause; etcd's absence is told once."""
        backoff = Backoff(most=_LONGEST_PAUSE)
        while True:
            try:
                await work()
                backoff.reset()
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                self._tell_reachable(is_reachable=False, why=_why(error))
                log.debug("etcd call failed", error=type(error).__name__)
            except _LeaseLost:
                raise
            except Exception:  # the root of this task: a listener's bug must not end it
                log.exception("discovery failed")
            await self._clock.sleep(backoff.next())

    def _tell_reachable(self, *, is_reachable: bool, why: str = "") -> None:
        if is_reachable == self._is_reachable:
            return
        self._is_reachable = is_reachable
        if is_reachable:
            log.info("etcd can be reached")
        else:
            log.warning("etcd cannot be reached: going on with what is known", why=why)
        if self._on_reachable is not None:
            self._on_reachable(is_reachable)


class _LeaseLost(Exception):
    """The lease has expired or was revoked."""


def _why(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    """In gRPC's words, which hold addresses and what is wrong with a certificate, no secret."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "no answer in time"
