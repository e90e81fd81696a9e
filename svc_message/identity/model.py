"""What identity works with: handles, devices, and the errors that its callers see."""

import re
import secrets
from datetime import timedelta

import grpc

from mesh.errors import WhimbrelError

PRIMARY = 1
KEY_BYTES = 32
ACQUIRE = timedelta(seconds=1)

HANDLE = re.compile(r"[a-z][a-z0-9_.]{2,31}")
HANDLE_ALLOWED = "3 to 32 of a-z, 0-9, '_' and '.', beginning with a letter"

_REGISTRATION_BITS = 14


class HandleInvalid(WhimbrelError):
    """Not a handle."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "HANDLE_INVALID"


class HandleTaken(WhimbrelError):
    """The handle belongs to an account with another device key."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "HANDLE_TAKEN"


class HandleUnknown(WhimbrelError):
    """No account has this handle."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "HANDLE_UNKNOWN"


class SignatureInvalid(WhimbrelError):
    """The request was not signed by the device's key."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "SIGNATURE_INVALID"


class SignatureStale(WhimbrelError):
    """The request was signed too long ago, or its signer's clock is wrong."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "SIGNATURE_STALE"


class DeviceUnknown(WhimbrelError):
    """There is no such device, or it is not linked any more."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "DEVICE_UNKNOWN"


def new_registration_id() -> int:
    """A number that tells two installations under one device id apart; never 0."""
    return 1 + secrets.randbelow(2**_REGISTRATION_BITS - 1)
