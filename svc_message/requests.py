"""What travels through the lanes: one dataclass a kind, each with the slot it belongs to.

`done` is called once, with the request and its result or Refusal. `origin` is the caller's own,
never looked at here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Done = Callable[[Any, Any], None]


@dataclass(slots=True, kw_only=True)
class Request:
    """Something asked of the shard that owns a slot."""

    slot: int
    done: Done
    origin: Any = None
    traces: Sequence[bytes] = ()  # where those of the sampled messages stand that it is about

    @property
    def size(self) -> int:
        """Bytes that it holds beside its ids."""
        return 0

    def settle(self, result: Any) -> None:
        """End with a result or a Refusal."""
        self.done(self, result)


EVERY_DEVICE = 0


@dataclass(slots=True)
class Body:
    """A ciphertext for one device in one registration, or for EVERY_DEVICE that is linked."""

    device_id: int
    registration_id: int
    type: int
    ciphertext: bytes


@dataclass(slots=True)
class Mismatch:
    """The devices, as (user, device), that a send leaves out, invents, or knows from before."""

    missing: list[tuple[bytes, int]]
    extra: list[tuple[bytes, int]]
    stale: list[tuple[bytes, int]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.stale)


@dataclass(slots=True, kw_only=True)
class SendRequest(Request):
    """A message to accept. `slot` is the conversation's."""

    conversation_id: bytes
    sender_id: bytes
    sender_device_id: int
    recipient_id: bytes
    recipient_slot: int
    client_message_id: bytes
    after: bytes
    day: int  # of first_tried_at, modulo 10: the dedup table
    digest: bytes
    message_id: bytes
    bodies: list[Body]  # for the recipient
    own_bodies: list[Body]  # for the sender's other devices
    is_shared: bool
    recipient_known: bool = False
    is_of_team: bool = False  # an internal one, by its service account
    # None until the lists of linked devices were compared; a shared body needs no comparison.
    mismatch: Mismatch | None = None
    refusal: int = 0  # an Outcome with which a new send is refused
    media_ids: Sequence[bytes] = ()

    @property
    def size(self) -> int:
        return _size(self.bodies) + _size(self.own_bodies)


@dataclass(slots=True, kw_only=True)
class Copy(Request):
    """One user's copy of an accepted message. `slot` is the user's.

    A copy with an entry stands in the outbox of the shard `home`, and was taken `attempts` times.
    """

    done: Done = field(default=lambda _copy, _result: None)
    user_id: bytes
    conversation_id: bytes
    prev: int
    seq: int
    sent_prev: int
    accepted_at: datetime
    peer_id: bytes
    sender_id: bytes
    sender_device_id: int
    message_id: bytes
    bodies: list[Body]
    entry_id: int = 0
    home: str = ""
    attempts: int = 0
    tries: int = 0  # in this instance, since it was accepted or taken

    @property
    def size(self) -> int:
        return _size(self.bodies)

    def body_for(self, device_id: int) -> Body:
        """What a device of the user gets; only for devices that got the copy."""
        for body in self.bodies:
            if body.device_id in (device_id, EVERY_DEVICE):
                return body
        raise KeyError(device_id)


@dataclass(slots=True, kw_only=True)
class ReceiptChange(Request):
    """What a peer has received, (delivered_after, delivered_to], or read up to.

    `slot` is that of the account it concerns. The entry stands in the outbox of the shard `home`,
    and was taken `attempts` times.
    """

    done: Done = field(default=lambda _change, _result: None)
    user_id: bytes
    conversation_id: bytes
    peer_id: bytes
    delivered_after: int
    delivered_to: int
    read_up_to: int
    authors: Sequence[bytes] = ()  # of each trace
    entry_id: int = 0
    home: str = ""
    attempts: int = 0


@dataclass(slots=True, kw_only=True)
class DeviceRequest(Request):
    """Something asked for a device. `slot` is the user's."""

    user_id: bytes
    device_id: int


@dataclass(slots=True, kw_only=True)
class OpenRequest(DeviceRequest):
    """A new session."""

    credential_version: int


@dataclass(slots=True, kw_only=True)
class AckRequest(DeviceRequest):
    """A device has stored its queue up to a position."""

    up_to_pos: int
    # Of the sampled messages: who sent them, and whom a receipt goes to, that one or a group.
    authors: Sequence[bytes] = ()
    owners: Sequence[bytes] = ()


@dataclass(slots=True, kw_only=True)
class PageRequest(DeviceRequest):
    """The next rows of a queue."""

    after_pos: int
    max_envelopes: int
    max_bytes: int


@dataclass(slots=True, kw_only=True)
class HeadRequest(DeviceRequest):
    """Where a queue stands."""


@dataclass(slots=True, kw_only=True)
class ReadRequest(Request):
    """A person has read the messages of `author_id`. `slot` is the reader's."""

    user_id: bytes
    conversation_id: bytes
    author_id: bytes
    up_to_seq: int


@dataclass(slots=True, kw_only=True)
class ReceiptsRequest(Request):
    """The receipts of an account above a version."""

    user_id: bytes
    after_version: int
    max_receipts: int


@dataclass(slots=True, kw_only=True)
class AccountRequest(Request):
    """Something asked about an account as a whole. `slot` is its own."""

    user_id: bytes


@dataclass(slots=True, kw_only=True)
class ContactRequest(Request):
    """An account writes to another that it has no conversation with. `slot` is the sender's."""

    user_id: bytes
    recipient_id: bytes


def _size(bodies: list[Body]) -> int:
    return sum(len(body.ciphertext) for body in bodies)
