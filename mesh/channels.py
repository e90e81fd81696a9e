"""One channel per instance of a service, opened when it is first used, closed when it leaves."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from mesh.errors import Unavailable
from mesh.instances import Instance, newest_at_each_address
from mesh.rendezvous import Rendezvous
from mesh.tls import Identity

_MESSAGE_BYTES = 4 * 1024 * 1024

CLIENT_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.keepalive_time_ms", 45_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # An instance that is back must be found soon, not after the default of up to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Channels to one address must not share a connection: each is closed for itself.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


class Channels:
    """The channels to the instances of one service, as discovery last told."""

    def __init__(
        self,
        identity: Identity,
        *,
        options: Sequence[tuple[str, Any]] = CLIENT_OPTIONS,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    ) -> None:
        self._identity = identity
        self._options = list(options)
        self._interceptors = list(interceptors)
        self._instances: dict[str, Instance] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._retired: list[tuple[str, grpc.aio.Channel]] = []
        self._closing: set[asyncio.Task[None]] = set()
        identity.on_renewed(self._renew)
        self.rendezvous = Rendezvous(())

    @property
    def instances(self) -> Mapping[str, Instance]:
        """Who is there, by instance id."""
        return self._instances

    def update(self, instances: Mapping[str, Instance]) -> None:
        """Take a new view; channels of those that left or moved are closed.

        At an address only the instance that started last is there.
        """
        instances = newest_at_each_address(instances)
        for instance_id, channel in list(self._channels.items()):
            if instances.get(instance_id) != self._instances[instance_id]:
                del self._channels[instance_id]
                self._close_later(instance_id, channel)
        for retired in self._retired[:]:
            if retired[0] not in instances:
                self._retired.remove(retired)
                self._close_later(*retired)
        if instances.keys() != self._instances.keys():
            self.rendezvous = Rendezvous(instances)
        self._instances = instances

    def channel(self, instance_id: str) -> grpc.aio.Channel:
        """The channel to an instance; Unavailable if it is not there (any more)."""
        channel = self._channels.get(instance_id)
        if channel is None:
            instance = self._instances.get(instance_id)
            if instance is None:
                raise Unavailable("the instance is gone")
            channel = self._channels[instance_id] = self._open(instance)
        return channel

    def pick(self, key: int | bytes) -> grpc.aio.Channel:
        """The channel to the key's instance; Unavailable if there is none at all."""
        instance_id = self.rendezvous.pick(key)
        if instance_id is None:
            raise Unavailable("no instance of the service is known")
        return self.channel(instance_id)

    def ranked(self, key: int | bytes) -> list[str]:
        """All instances, the key's own first, then in the order of fail-over."""
        return self.rendezvous.ranked(key)

    async def close(self) -> None:
        """Close all channels; calls that are open end."""
        self._identity.off_renewed(self._renew)
        channels = [*self._channels.values(), *(channel for _, channel in self._retired)]
        self._channels.clear()
        self._retired.clear()
        self._instances.clear()
        self.rendezvous = Rendezvous(())
        await asyncio.gather(*self._closing, *(channel.close() for channel in channels))

    def _open(self, instance: Instance) -> grpc.aio.Channel:
        return self._identity.channel(
            instance.address,
            instance.service,
            options=self._options,
            interceptors=self._interceptors,
        )

    def _renew(self) -> None:
        """New calls go by new channels; what is open on the old ones goes on to its own end.

        Nobody calls by an old channel any more: once its connection has ended it is idle.
        """
        for retired in self._retired[:]:
            if retired[1].get_state() is grpc.ChannelConnectivity.IDLE:
                self._retired.remove(retired)
                self._close_later(*retired)
        self._retired += self._channels.items()
        self._channels.clear()

    def _close_later(self, instance_id: str, channel: grpc.aio.Channel) -> None:
        closing = asyncio.create_task(channel.close(), name=f"close-channel-{instance_id}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
