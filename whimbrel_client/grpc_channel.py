"""How a client's connection to a gateway is made."""

from collections.abc import Sequence
from typing import Any

import grpc

_OPTIONS: Sequence[tuple[str, Any]] = (
    # A dead peer is noticed within 55 s, also while nothing is said.
    ("grpc.keepalive_time_ms", 45_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 1024 * 1024),
    # Clients in one process must not share a connection: a gateway allows few streams on one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel of its own to this gateway; in the clear if there are no credentials."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
