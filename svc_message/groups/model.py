"""What groups are made of: roles, a group as it stands, the changes of it, and what refuses one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TypeAlias

import grpc

from mesh.errors import PermissionDenied, WhimbrelError

MOST_CHANGES = 100  # of a kind, in one answer


class Role(IntEnum):
    """Each may do all that the ones below it may."""

    MUTED = 1
    MEMBER = 2
    ADMIN = 3
    OWNER = 4


@dataclass(frozen=True, slots=True)
class Link:
    """An invite link; `uses_left` 0 means that uses are not counted."""

    key_hash: bytes = field(repr=False)
    has_password: bool = False
    expires_at: datetime | None = None
    uses_left: int = 0
    needs_approval: bool = False


@dataclass(frozen=True, slots=True)
class Permissions:
    """The least role that each thing takes."""

    send: Role = Role.MEMBER
    add: Role = Role.ADMIN
    edit: Role = Role.ADMIN


@dataclass(frozen=True, slots=True)
class Profile:
    """What a change of the group itself may set."""

    attributes: bytes = field(repr=False)
    permissions: Permissions = Permissions()
    disappear_after: timedelta = timedelta()
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A group as it stood at one moment; of its people, those who were asked for."""

    group_id: bytes
    revision: int
    device_epoch: int
    member_count: int
    profile: Profile
    roles: Mapping[bytes, Role] = field(default_factory=dict)
    banned: frozenset[bytes] = frozenset()
    # The shard's clock; None where nothing was to be decided.
    now: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Revision:
    """What a change makes of a group."""

    profile: Profile
    leaving: Sequence[bytes] = ()
    joining: Mapping[bytes, Role] = field(default_factory=dict)
    changing: Mapping[bytes, Role] = field(default_factory=dict)
    banning: Sequence[bytes] = ()
    unbanning: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """One member."""

    user_id: bytes
    role: Role
    joined_revision: int


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """A change that made a revision, as it was logged: a serialised Change."""

    revision: int
    actor_id: bytes
    changed_at: datetime
    change: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed in a group since, and where it stands."""

    revision: int
    device_epoch: int
    changes: Sequence[LoggedChange]
    device_changes: Sequence[tuple[int, bytes]]  # device epoch, user


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Other attributes, encrypted."""

    attributes: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SetPermissions:
    """Other permissions."""

    permissions: Permissions


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Messages disappear so long after they were read; zero: never."""

    disappear_after: timedelta


@dataclass(frozen=True, slots=True)
class Add:
    """People become members."""

    user_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """A member is none any more, and with `ban` may not come back."""

    user_id: bytes
    ban: bool = False


@dataclass(frozen=True, slots=True)
class Unban:
    """A person may come back."""

    user_id: bytes


@dataclass(frozen=True, slots=True)
class Leave:
    """The actor leaves."""


@dataclass(frozen=True, slots=True)
class SetRole:
    """A member gets another role."""

    user_id: bytes
    role: Role


@dataclass(frozen=True, slots=True)
class Transfer:
    """A member becomes the owner."""

    user_id: bytes


@dataclass(frozen=True, slots=True)
class SetLink:
    """Another link, or none."""

    link: Link | None


@dataclass(frozen=True, slots=True)
class Join:
    """The actor comes by the link."""

    key_hash: bytes = field(repr=False)


Change: TypeAlias = (
    SetAttributes
    | SetPermissions
    | SetTimer
    | Add
    | Remove
    | Unban
    | Leave
    | SetRole
    | Transfer
    | SetLink
    | Join
)


class GroupUnknown(WhimbrelError):
    """There is no such group, or the caller is not a member of it; it is not told which."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "GROUP_UNKNOWN"


class MemberUnknown(WhimbrelError):
    """The account does not exist, or is not a member."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "MEMBER_UNKNOWN"


class MemberNotAddable(PermissionDenied):
    """The account lets the caller not add it; it may be invited by the link."""

    reason = "MEMBER_NOT_ADDABLE"


class MemberBanned(PermissionDenied):
    """The account is banned from the group."""

    reason = "MEMBER_BANNED"


class GroupFull(WhimbrelError):
    """The group has as many members as it may have."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "GROUP_FULL"


class LinkInvalid(PermissionDenied):
    """The key is wrong, or the link has ended or is used up; it is not told which."""

    reason = "GROUP_LINK_INVALID"


class MessageUnknown(WhimbrelError):
    """The caller has no such message in the group."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "MESSAGE_UNKNOWN"
