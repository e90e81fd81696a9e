"""The calls of etcd that discovery needs, each with a deadline.

The only module that knows aetcd, and of it the generated stubs alone: its watcher does not tell
when the server ends a watch.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
from aetcd import rpc
from aetcd.utils import prefix_range_end

from mesh.renewal import Renewing
from mesh.store_tls import StoreTls
from mesh.telemetry import Telemetry

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


def after_all(prefix: str) -> bytes:
    """The key that follows all that begin with the prefix."""
    end: bytes = prefix_range_end(prefix.encode())
    return end


class Etcd:
    """One etcd. Its calls raise AioRpcError.

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


def _changes(events: Any, skipped: int) -> dict[str, bytes | None]:
    return {
        event.kv.key.decode()[skipped:]: event.kv.value if event.type == event.PUT else None
        for event in events
    }
