"""What the SDK tells of groups."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from whimbrel.group.v1 import change_pb2
from whimbrel_client.errors import ClientError
from whimbrel_client.model import Tick


class Role(enum.IntEnum):
    """What a member may do; each may do all that the ones below it may."""

    MUTED = 1
    MEMBER = 2
    ADMIN = 3
    OWNER = 4


@dataclass(frozen=True, slots=True)
class Permissions:
    """The least role that each thing takes."""

    send: Role = Role.MEMBER
    add: Role = Role.ADMIN
    edit: Role = Role.ADMIN

    def on_wire(self) -> change_pb2.Permissions:
        """As GroupService takes them."""
        roles = (change_pb2.Role.ValueType(role) for role in (self.send, self.add, self.edit))
        send, add, edit = roles
        return change_pb2.Permissions(send=send, add=add, edit=edit)


@dataclass(frozen=True, slots=True)
class Group:
    """A group, as this device knows it."""

    group_id: bytes
    # Empty while nobody has handed over the key that opens it.
    name: str
    description: str
    revision: int
    # False: the account has left, or was removed.
    is_member: bool
    permissions: Permissions
    # Messages disappear so long after they were read; None: never.
    disappear_after: timedelta | None
    # Those who are in it now, by account.
    members: dict[bytes, Role]


class Tally(NamedTuple):
    """What has become of an own message to a group."""

    delivered_to: int
    read_by: int
    # How many members it was written to, beside the sender.
    audience: int

    @property
    def tick(self) -> Tick:
        """Delivered, and read, is what all of them have."""
        if self.audience and self.read_by >= self.audience:
            return Tick.READ
        is_delivered = self.audience and self.delivered_to >= self.audience
        return Tick.DELIVERED if is_delivered else Tick.SENT


@dataclass(frozen=True, slots=True)
class MemberReceipt:
    """A member has received a message."""

    user_id: bytes
    is_read: bool


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Somebody has come by the link, and waits to be added."""

    user_id: bytes
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class GroupChange:
    """An entry of a group's log."""

    revision: int
    actor: bytes
    changed_at: datetime
    # Which field of whimbrel.group.v1.Change is set; empty: newer than this version.
    kind: str
    # Whom it is about, beside the actor.
    about: Sequence[bytes]


class GroupUnknown(ClientError):
    """This device knows no such group, or the account is not in it any more."""


class GroupKeyUnknown(ClientError):
    """Nobody has handed over the key of the group's name yet."""


class InviteInvalid(ClientError):
    """The text is no invite link."""
