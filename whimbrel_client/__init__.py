"""The SDK: what an application needs to send and receive messages over Whimbrel.

It owns the device's side: the stream to a gateway, the local store, the queue of what is to be
sent. What it promises: a message that `send` returned survives a crash and arrives once, in order;
a message that arrived is on the disk before the mesh is told; nothing is shown twice.

    account = await Client.register("~/alice", "alice", gateways=["localhost:50051"])

    async with Client.connect("~/alice") as client:
        message = await client.send("bob", "hello")
        await client.accepted(message)
        async for message in client.messages(after=cursor):
            ...
"""

from whimbrel_client.client import Client
from whimbrel_client.errors import (
    BadAddress,
    BodyTooLarge,
    CallFailed,
    ClientClosed,
    ClientError,
    CodeInvalid,
    DeviceRevoked,
    DeviceUnknown,
    HandleTaken,
    HandleUnknown,
    IdentityUnknown,
    LinkFailed,
    NameTooLong,
    NotConfirmed,
    NotSent,
    NotTheAuthor,
    NumberTaken,
    ProfileInUse,
    ProfileMissing,
    RateLimited,
    RegistrationLocked,
    SendRefused,
    StoreFailed,
    StoreKeyFailed,
    StoreKeyMissing,
    StoreKeyUnsafe,
    StoreKeyWrong,
    StoreTooNew,
    TooManyDevices,
    Unreachable,
)
from whimbrel_client.ids import id_text
from whimbrel_client.media.errors import (
    FileChanged,
    FileFailed,
    FileForged,
    FileMissing,
    FileTooLarge,
    RangeUnproved,
    TransferFailed,
)
from whimbrel_client.model import (
    Alarm,
    Conversation,
    HistoryProgress,
    IdentityChange,
    LinkedDevice,
    Mark,
    Message,
    Outcome,
    OutgoingMessage,
    Receipt,
    SendState,
    Tick,
)
from whimbrel_client.profile import Account, Profile
from whimbrel_client.ranges import SeqRanges
from whimbrel_client.registering import CodeSent
from whimbrel_client.reporting import ReportReason
from whimbrel_client.store_key import Protection

__all__ = [
    "Account",
    "Alarm",
    "BadAddress",
    "BodyTooLarge",
    "CallFailed",
    "Client",
    "ClientClosed",
    "ClientError",
    "CodeInvalid",
    "CodeSent",
    "Conversation",
    "DeviceRevoked",
    "DeviceUnknown",
    "FileChanged",
    "FileFailed",
    "FileForged",
    "FileMissing",
    "FileTooLarge",
    "HandleTaken",
    "HandleUnknown",
    "HistoryProgress",
    "IdentityChange",
    "IdentityUnknown",
    "LinkFailed",
    "LinkedDevice",
    "Mark",
    "Message",
    "NameTooLong",
    "NotConfirmed",
    "NotSent",
    "NotTheAuthor",
    "NumberTaken",
    "Outcome",
    "OutgoingMessage",
    "Profile",
    "ProfileInUse",
    "ProfileMissing",
    "Protection",
    "RangeUnproved",
    "RateLimited",
    "Receipt",
    "RegistrationLocked",
    "ReportReason",
    "SendRefused",
    "SendState",
    "SeqRanges",
    "StoreFailed",
    "StoreKeyFailed",
    "StoreKeyMissing",
    "StoreKeyUnsafe",
    "StoreKeyWrong",
    "StoreTooNew",
    "Tick",
    "TooManyDevices",
    "TransferFailed",
    "Unreachable",
    "id_text",
]
