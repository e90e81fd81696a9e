"""What the push service works with: devices, their tokens, wake-ups, and what providers answer."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

import grpc

from mesh.errors import InvalidArgument, WhimbrelError

POINT_BYTES = 65
AUTH_BYTES = 16


class TokenInvalid(InvalidArgument):
    """What was registered is no token; `field` and `allowed` say why."""

    reason = "PUSH_TOKEN_INVALID"


class ProviderOff(WhimbrelError):
    """The mesh has no access to this provider."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PUSH_PROVIDER_OFF"


class Provider(IntEnum):
    """Whose push service a token is for, numbered as in the store."""

    APNS = 1
    FCM = 2
    WEB_PUSH = 3


@dataclass(frozen=True, slots=True)
class Device:
    """A device of an account."""

    user_id: bytes
    device_id: int

    def __str__(self) -> str:
        return f"{self.user_id.hex()}:{self.device_id}"

    @classmethod
    def parse(cls, text: str) -> "Device":
        """Read what str() wrote."""
        user_id, _, device_id = text.partition(":")
        return cls(bytes.fromhex(user_id), int(device_id))


@dataclass(frozen=True, slots=True)
class Token:
    """What a provider needs to find a device. Whoever has it can wake the device: never shown."""

    provider: Provider
    secret: bytes = field(repr=False)
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Subscription:
    """A Web Push subscription: where to push to, and for whom to encrypt."""

    endpoint: str = field(repr=False)
    p256dh: bytes = field(repr=False)
    auth: bytes = field(repr=False)

    def pack(self) -> bytes:
        """As a token's secret."""
        return self.p256dh + self.auth + self.endpoint.encode()

    @classmethod
    def unpack(cls, secret: bytes) -> "Subscription":
        """Read what pack() wrote."""
        keys, endpoint = POINT_BYTES + AUTH_BYTES, POINT_BYTES
        return cls(secret[keys:].decode(), secret[:endpoint], secret[endpoint:keys])


@dataclass(frozen=True, slots=True)
class Delivered:
    """The provider has taken the wake-up."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The provider knows no such token (any more): since then, if it says so."""

    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """It can be tried again; `is_ours` if the trouble is this one device's, not the provider's."""

    reason: str
    after: timedelta | None = None
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will never take this wake-up: a bug of ours, or a setting."""

    reason: str


Answer = Delivered | Gone | Later | Refused
