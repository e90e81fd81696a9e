"""Who is there: instances register in etcd under a lease and watch those they call.

The only module that knows etcd. It uses the generated stubs of aetcd and its own loops: aetcd's
watcher does not tell when the server ends a watch. While etcd is away everything goes on with what
was last known; when it is back, the instance registers again and reads everything afresh.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import grpc
import structlog
from aetcd import rpc
from aetcd.utils import prefix_range_end

from mesh.backoff import Backoff
from mesh.clock import Clock, SystemClock
from mesh.errors import Unavailable
from mesh.instances import Instance
from mesh.replica import Entries, Replica
from mesh.store_tls import PLAINTEXT, Renewing, StoreTls
from mesh.telemetry import OFF, Telemetry

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=10)
_TIMEOUT = timedelta(seconds=2)
_LONGEST_PAUSE = timedelta(seconds=1)
# Without it, a member that has lost its leader keeps a watch open and silent.
_NEEDS_LEADER = (("hasleader", "true"),)
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)


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
        self._etcd = _Etcd(self._endpoint, self._tls, self._timeout, self._telemetry)
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
        self._follow(prefix, prefix_range_end(prefix.encode()), replica, view.synced)
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
        self._follow(prefix, prefix_range_end(prefix.encode()), replica, view.synced)
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


class _Etcd:
    """The six calls of etcd that discovery needs, each with a deadline.

    A call is made with the files of `tls` as they are; watches that are open go on with what they
    were opened with, until they end.
    """

    def __init__(self, endpoint: str, tls: StoreTls, timeout: float, telemetry: Telemetry) -> None:
        self._timeout = timeout
        self._newest = Renewing(
            tls.files, lambda: _Connection(endpoint, tls.credentials()), telemetry=telemetry
        )
        self._connections = [self._newest.now()]

    async def close(self) -> None:
        for connection in self._connections:
            await connection.channel.close()

    async def _connection(self) -> "_Connection":
        newest = self._newest.now()
        if newest is not self._connections[-1]:
            ended = [one for one in self._connections if one.is_idle]
            self._connections = [one for one in self._connections if one not in ended] + [newest]
            for one in ended:
                await one.channel.close()
        return newest

    async def read(self, prefix: str, end: bytes) -> tuple[dict[str, bytes], int]:
        """All entries, by what follows the prefix, and the revision at which they stood so."""
        request = rpc.RangeRequest(key=prefix.encode(), range_end=end)
        answer = await (await self._connection()).kv.Range(request, timeout=self._timeout)
        entries = {kv.key.decode()[len(prefix) :]: kv.value for kv in answer.kvs}
        return entries, answer.header.revision

    async def changes(
        self, prefix: str, end: bytes, revision: int
    ) -> AsyncGenerator[dict[str, bytes | None], None]:
        """Each change from the revision on; ends when etcd ends the watch, for whatever reason."""
        request = rpc.WatchCreateRequest(
            key=prefix.encode(), range_end=end, start_revision=revision
        )
        watch = (await self._connection()).watch.Watch(metadata=_NEEDS_LEADER)
        try:
            async with asyncio.timeout(self._timeout):
                await watch.write(rpc.WatchRequest(create_request=request))
                answer = await watch.read()
            while answer is not grpc.aio.EOF and not answer.canceled:
                if answer.events:
                    yield _changes(answer.events, len(prefix))
                answer = await watch.read()
        finally:
            watch.cancel()

    async def grant(self, seconds: int) -> int:
        lease = (await self._connection()).lease
        answer = await lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=seconds), timeout=self._timeout)
        return int(answer.ID)

    async def refresh(self, lease_id: int) -> bool:
        """Whether the lease lives on."""
        # One request a stream, closed by us: a long stream would need its own repair.
        requests = [rpc.LeaseKeepAliveRequest(ID=lease_id)]
        lease = (await self._connection()).lease
        async for answer in lease.LeaseKeepAlive(requests, timeout=self._timeout):
            return bool(answer.TTL > 0)
        return False

    async def revoke(self, lease_id: int) -> None:
        lease = (await self._connection()).lease
        await lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=lease_id), timeout=self._timeout)

    async def put(self, key: str, value: bytes, *, lease_id: int = 0) -> None:
        request = rpc.PutRequest(key=key.encode(), value=value, lease=lease_id)
        await (await self._connection()).kv.Put(request, timeout=self._timeout)


class _Connection:
    """A channel, which keeps the credentials that it was made with, and what is called by it."""

    def __init__(self, endpoint: str, credentials: grpc.ChannelCredentials | None) -> None:
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
        self.kv = rpc.KVStub(self.channel)
        self.lease = rpc.LeaseStub(self.channel)
        self.watch = rpc.WatchStub(self.channel)

    @property
    def is_idle(self) -> bool:
        """Whether its connection has ended; nobody has called by it since."""
        return self.channel.get_state() is grpc.ChannelConnectivity.IDLE


def _why(error: grpc.aio.AioRpcError | TimeoutError) -> str:
    """In gRPC's words, which hold addresses and what is wrong with a certificate, no secret."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return "no answer in time"


def _changes(events: Any, skipped: int) -> dict[str, bytes | None]:
    return {
        event.kv.key.decode()[skipped:]: event.kv.value if event.type == event.PUT else None
        for event in events
    }
