"""What identity works with: handles, devices, and the errors that its callers see."""

import re
import secrets
from dataclasses import dataclass, field

import grpc

from mesh.errors import WhimbrelError
from svc_message.identity.keys_model import DeviceKeys

PRIMARY = 1

_HANDLE = re.compile(r"[a-z][a-z0-9_.]{2,31}")
_REGISTRATION_BITS = 14


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


class CodeInvalid(WhimbrelError):
    """The one-time code is wrong, used or too old, or too many were tried; it is not told which."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "CODE_INVALID"


class NumberTaken(WhimbrelError):
    """The number belongs to another account."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "NUMBER_TAKEN"


class RegistrationLocked(WhimbrelError):
    """The number's account has a PIN, and this was none or another."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "REGISTRATION_LOCKED"


def new_registration_id() -> int:
    """A number that tells two installations under one device id apart; never 0."""
    return 1 + secrets.randbelow(2**_REGISTRATION_BITS - 1)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account that is about to be made, with its primary device."""

    user_id: bytes
    handle: str | None = None  # a service account has none
    public_key: bytes = b""  # nor does it sign anything
    has_queue: bool = True
    registration_id: int = field(default_factory=new_registration_id)
    keys: DeviceKeys | None = None  # whose registration_id counts


@dataclass(frozen=True, slots=True)
class SigningDevice:
    """A linked device, as far as its requests need it."""

    user_id: bytes
    device_id: int
    public_key: bytes
    credential_version: int
    is_seen: bool = True  # today


@dataclass(frozen=True, slots=True)
class Registered:
    """An account, as far as registering it again depends on it."""

    user_id: bytes
    handle: str
    number_hash: bytes | None
    public_key: bytes  # the primary's


@dataclass(frozen=True, slots=True)
class EndedSession:
    """The sessions of a device that may not go on: those below the epoch."""

    user_id: bytes
    device_id: int
    below_epoch: int


def is_handle(text: str) -> bool:
    """Whether an account may be called so."""
    return _HANDLE.fullmatch(text) is not None
