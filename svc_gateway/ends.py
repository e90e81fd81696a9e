"""Why a session ends, the status it ends with, and when the device may come back."""

import random
from datetime import timedelta
from typing import ClassVar

import grpc

from mesh.errors import WhimbrelError


class SessionEnd(WhimbrelError):
    """The server ends the stream; `retry_after` is unset if this credential is no use."""

    # The device comes back at a moment between these, so that a crowd does not come as one.
    reconnect_seconds: ClassVar[tuple[float, float] | None] = (1.0, 5.0)

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=_drawn(self.reconnect_seconds))


class StreamReplaced(SessionEnd):
    """A newer stream of the device took over."""

    code = grpc.StatusCode.ABORTED
    reason = "STREAM_REPLACED"


class DeviceRevoked(SessionEnd):
    """The device was unlinked, or its credential replaced."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "DEVICE_REVOKED"
    reconnect_seconds = None


class SessionTokenExpired(SessionEnd):
    """The token's time, and the grace after it, are over."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "TOKEN_EXPIRED"
    reconnect_seconds = None


class SessionTokenInvalid(SessionEnd):
    """The next token that the device showed on its stream is not good, or not its own."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "TOKEN_INVALID"
    reconnect_seconds = None


class ServerDraining(SessionEnd):
    """The instance is being taken down."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SERVER_DRAINING"
    reconnect_seconds = (0.0, 2.0)


class Overloaded(SessionEnd):
    """The instance has as many sessions as it can serve."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "OVERLOADED"


class MoreThanItsShare(SessionEnd):
    """The instance has more sessions than its share; this one is as well off at another."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "OVERLOADED"
    reconnect_seconds = (0.0, 2.0)


class SlowConsumer(SessionEnd):
    """The device neither read nor acknowledged while something waited."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "SLOW_CONSUMER"
    reconnect_seconds = (0.0, 1.0)


class ProtocolViolation(SessionEnd):
    """The device broke the protocol of the stream."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "PROTOCOL_VIOLATION"


class ServiceUnavailable(SessionEnd):
    """What the session needs of the message service cannot be had now."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class ShardUnavailable(ServiceUnavailable):
    """The shard that holds the device's queue cannot be reached."""

    reason = "SHARD_UNAVAILABLE"


def _drawn(bounds: tuple[float, float] | None) -> timedelta | None:
    if bounds is None:
        return None
    return timedelta(seconds=random.uniform(*bounds))  # noqa: S311


_BY_REASON = {end.reason: end for end in (StreamReplaced, DeviceRevoked, ShardUnavailable)}


def end_for(reason: str) -> SessionEnd:
    """The end of a session whose request was refused for a reason, or that was ended for it."""
    return _BY_REASON.get(reason, ServiceUnavailable)(f"the message service says {reason}")
