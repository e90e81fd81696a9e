"""What linking works with: devices, their limits, and the errors that callers see."""

from dataclasses import dataclass, field
from datetime import date, datetime

import grpc

from mesh.errors import Unauthenticated, WhimbrelError

MOST_DEVICES = 10


class DeviceRevoked(Unauthenticated):
    """The calling device was unlinked, or its credential replaced, after its token was made."""

    reason = "DEVICE_REVOKED"


class TooManyDevices(WhimbrelError):
    """The account has as many devices as it may have."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "TOO_MANY_DEVICES"


class LinkTokenInvalid(WhimbrelError):
    """The link token is wrong, used, or too old."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "LINK_TOKEN_INVALID"


class ProvisioningEmpty(WhimbrelError):
    """Nothing was left at the address yet: ask again."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "PROVISIONING_EMPTY"


class ProvisioningTaken(WhimbrelError):
    """Something else was left at the address before."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "PROVISIONING_TAKEN"


@dataclass(frozen=True, slots=True)
class LinkedDevice:
    """A device as its account sees it."""

    device_id: int
    registration_id: int
    encrypted_name: bytes
    linked_at: datetime
    last_seen_on: date | None


@dataclass(frozen=True, slots=True)
class LinkToken:
    """Lets one device link itself."""

    token: bytes = field(repr=False)
    expires_at: datetime
