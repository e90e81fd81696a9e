"""Everything that the SDK raises on purpose, as a tree under ClientError.

ClientError
├── CallFailed              a call to the mesh was refused
│   ├── HandleTaken
│   ├── HandleUnknown
│   ├── CodeInvalid         of a phone number
│   ├── NumberTaken
│   ├── RegistrationLocked  the number wants its PIN
│   ├── RateLimited
│   ├── TooManyDevices
│   ├── DeviceUnknown       the account has no such device
│   └── DeviceRevoked       the device does not belong to the account (any more)
├── Unreachable             no gateway answered
├── BadAddress              of a gateway, or no authorities to trust it by
├── NotSent
│   ├── SendRefused         the mesh refused the message for good
│   └── NotConfirmed        tried, never answered, too old to try again
├── BodyTooLarge            more than one message may carry
├── NotTheAuthor            an edit or a deletion of somebody else's message
├── IdentityUnknown         no session was ever opened with the account
├── LinkFailed              a device was not linked
├── NameTooLong             of a device
├── ProfileMissing          the folder holds no account
├── ProfileInUse            another process has the store open
├── StoreTooNew             the store was written by a later version
├── StoreKeyFailed          the store cannot be opened for want of its key
│   ├── StoreKeyMissing     it is not where it was kept, or no passphrase was given
│   ├── StoreKeyUnsafe      others may read the file that has it
│   └── StoreKeyWrong       it is not the key of this store, or the store is damaged
├── StoreFailed             the disk refused to keep something
└── ClientClosed            the client ended before this could happen
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_DOMAIN = "whimbrel"


class ClientError(Exception):
    """What the SDK expects may go wrong."""


class CallFailed(ClientError):
    """The mesh refused a call; `reason` is a whimbrel.error.v1.ErrorReason without its prefix."""

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message if reason in message else f"{message} ({reason})".lstrip())
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after


class HandleTaken(CallFailed):
    """The handle belongs to an account with another device key."""


class HandleUnknown(CallFailed):
    """No account has this handle."""


class CodeInvalid(CallFailed):
    """The code is wrong, used or too old, or too many were tried: the mesh does not say which."""


class NumberTaken(CallFailed):
    """The number belongs to an account with another handle."""

    @property
    def handle(self) -> str:
        """The handle under which that account can be registered again."""
        return self.metadata.get("handle", "")


class RegistrationLocked(CallFailed):
    """The number's account has a PIN, and this was none or another."""


class RateLimited(CallFailed):
    """Too often, or too many wrong ones; `retry_after` says when again."""


class TooManyDevices(CallFailed):
    """The account has as many devices as it may have."""


class DeviceUnknown(CallFailed):
    """The own account has no such device."""


class DeviceRevoked(CallFailed):
    """The device is not linked to the account; the client will not come back by itself."""


class Unreachable(ClientError):
    """No gateway answered."""


class BadAddress(ClientError):
    """What was given is no address of a gateway, or the file with authorities holds none."""


class NotSent(ClientError):
    """A message was queued and then given up."""


class SendRefused(NotSent):
    """The mesh refused the message for good."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the message was refused: {reason}")
        self.reason = reason


class NotConfirmed(NotSent):
    """The message was tried and never answered; it is too old to be tried again."""


class BodyTooLarge(ClientError):
    """The message is longer than one message may be; nothing was queued."""


class NotTheAuthor(ClientError):
    """Only its author may edit or take back a message; nothing was queued."""


class IdentityUnknown(ClientError):
    """The account's identity key is not known here yet."""


class LinkFailed(ClientError):
    """The device was not linked: nobody came, or somebody who had not seen the code."""


class NameTooLong(ClientError):
    """The name of a device is longer than the mesh keeps."""


class ProfileMissing(ClientError):
    """The folder holds no account: register first."""


class ProfileInUse(ClientError):
    """Another process has the profile open; a device has one stream and one store."""


class StoreTooNew(ClientError):
    """The store was written by a later version of the SDK; it is left untouched."""


class StoreKeyFailed(ClientError):
    """The store is left untouched, for its key is not to be had."""


class StoreKeyMissing(StoreKeyFailed):
    """The key is not where it was kept, or it needs a passphrase that was not given."""


class StoreKeyUnsafe(StoreKeyFailed):
    """Others than the owner may read the file that has the key, or tells where it is."""


class StoreKeyWrong(StoreKeyFailed):
    """The passphrase, or the key, does not open this store, or the store is damaged."""


class StoreFailed(ClientError):
    """The disk refused to keep something; nothing was acknowledged that is not kept."""


class ClientClosed(ClientError):
    """The client ended before this could happen."""


_CALL_ERRORS: Mapping[str, type[CallFailed]] = {
    "HANDLE_TAKEN": HandleTaken,
    "HANDLE_UNKNOWN": HandleUnknown,
    "CODE_INVALID": CodeInvalid,
    "NUMBER_TAKEN": NumberTaken,
    "REGISTRATION_LOCKED": RegistrationLocked,
    "RATE_LIMITED": RateLimited,
    "TOO_MANY_DEVICES": TooManyDevices,
    "DEVICE_UNKNOWN": DeviceRevoked,
    "DEVICE_REVOKED": DeviceRevoked,
    # The key here is not the account's any more.
    "SIGNATURE_INVALID": DeviceRevoked,
}


def error_of(failure: grpc.aio.AioRpcError) -> CallFailed:
    """Read a failed call; a failure that is not one of ours has the status code as its reason."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    reason, metadata, retry_after = failure.code().name, {}, None
    try:
        status = rpc_status.from_call(cast(grpc.Call, failure))
    except ValueError:  # the trailer contradicts the status: trust the status only
        status = None
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == _DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    error = _CALL_ERRORS.get(reason, CallFailed)
    message = failure.details() or reason
    return error(reason, message, metadata=metadata, retry_after=retry_after)
