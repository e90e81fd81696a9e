"""Groups as protobuf: changes read, groups and logs written."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from mesh.errors import InvalidArgument
from mesh.ids import ID_BYTES
from svc_message.groups.model import (
    KEY_BYTES,
    LONGEST_TIMER,
    MOST_ADDED,
    MOST_ATTRIBUTE_BYTES,
    Add,
    Change,
    Changes,
    Group,
    Leave,
    Link,
    Permissions,
    Remove,
    Role,
    SetAttributes,
    SetLink,
    SetPermissions,
    SetRole,
    SetTimer,
    Transfer,
    Unban,
)
from svc_message.to_gateway import fill_time
from whimbrel.group.v1 import change_pb2, group_pb2
from whimbrel.message.v1 import send_pb2

_MOST_USES = 5000


def read_change(change: change_pb2.Change) -> Change:
    """The change that is asked for. Raises InvalidArgument."""
    kind = change.WhichOneof("change")
    read = _READERS.get(kind or "")
    if kind is None or read is None:
        raise _invalid("change", ", ".join(_READERS))
    return read(getattr(change, kind))


def read_attributes(attributes: bytes) -> bytes:
    """The encrypted attributes. Raises InvalidArgument."""
    if len(attributes) > MOST_ATTRIBUTE_BYTES:
        raise _invalid("attributes", f"at most {MOST_ATTRIBUTE_BYTES} bytes")
    return attributes


def read_timer(span: Duration) -> timedelta:
    """How long messages stay once they are read. Raises InvalidArgument."""
    if span.nanos or not 0 <= span.seconds <= LONGEST_TIMER.total_seconds():
        raise _invalid("disappear_after", f"whole seconds, at most {LONGEST_TIMER.days} days")
    return timedelta(seconds=span.seconds)


def read_permissions(permissions: change_pb2.Permissions) -> Permissions:
    """The permissions, all three. Raises InvalidArgument."""
    roles = [permissions.send, permissions.add, permissions.edit]
    if not all(Role.MEMBER <= role <= Role.OWNER for role in roles):
        raise _invalid("permissions", "ROLE_MEMBER, ROLE_ADMIN or ROLE_OWNER each")
    return Permissions(*map(Role, roles))


def fill_group(into: group_pb2.Group, group: Group) -> None:
    """Write a group."""
    into.group_id = group.group_id
    into.revision, into.device_epoch = group.revision, group.device_epoch
    into.attributes = group.profile.attributes
    permissions = group.profile.permissions
    into.permissions.send = role_on_wire(permissions.send)
    into.permissions.add = role_on_wire(permissions.add)
    into.permissions.edit = role_on_wire(permissions.edit)
    if group.profile.disappear_after:
        into.disappear_after.FromTimedelta(group.profile.disappear_after)
    into.member_count = group.member_count


def fill_link(into: change_pb2.InviteLink, link: Link) -> None:
    """Write the invite link."""
    into.key_hash, into.has_password = link.key_hash, link.has_password
    if link.expires_at is not None:
        fill_time(into.expires_at, link.expires_at)
    into.uses_left, into.needs_approval = link.uses_left, link.needs_approval


def fill_changes(
    into: group_pb2.ListChangesResponse | send_pb2.GroupChanged, changes: Changes
) -> None:
    """Write what has changed, and where the group stands."""
    into.revision, into.device_epoch = changes.revision, changes.device_epoch
    for logged in changes.changes:
        entry = into.changes.add(revision=logged.revision, actor_id=logged.actor_id)
        fill_time(entry.changed_at, logged.changed_at)
        entry.change.ParseFromString(logged.change)
    for device_epoch, user_id in changes.device_changes:
        into.device_changes.add(device_epoch=device_epoch, user_id=user_id)


def role_on_wire(role: Role) -> change_pb2.Role.ValueType:
    """The wire form of a role."""
    return change_pb2.Role.ValueType(role)


def _read_add(add: change_pb2.AddMembers) -> Change:
    if not 1 <= len(add.user_ids) <= MOST_ADDED:
        raise _invalid("user_ids", f"1 to {MOST_ADDED}")
    return Add(tuple(_id(user_id) for user_id in add.user_ids))


def _read_set_role(change: change_pb2.SetRole) -> Change:
    if not Role.MUTED <= change.role <= Role.ADMIN:
        raise _invalid("role", "ROLE_MUTED, ROLE_MEMBER or ROLE_ADMIN")
    return SetRole(_id(change.user_id), Role(change.role))


def _read_link(link: change_pb2.InviteLink) -> Change:
    if len(link.key_hash) != KEY_BYTES:
        raise _invalid("key_hash", f"{KEY_BYTES} bytes")
    if link.uses_left > _MOST_USES:
        raise _invalid("uses_left", f"at most {_MOST_USES}")
    expires_at = _time(link) if link.HasField("expires_at") else None
    return SetLink(
        Link(link.key_hash, link.has_password, expires_at, link.uses_left, link.needs_approval)
    )


def _time(link: change_pb2.InviteLink) -> datetime:
    try:
        return link.expires_at.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise _invalid("expires_at", "a time") from None


def _id(value: bytes) -> bytes:
    if len(value) != ID_BYTES:
        raise _invalid("user_id", f"{ID_BYTES} bytes")
    return value


def _invalid(name: str, allowed: str) -> InvalidArgument:
    return InvalidArgument(f"{name} is not allowed", metadata={"field": name, "allowed": allowed})


_READERS: Mapping[str, Callable[[Any], Change]] = {
    "attributes": lambda attributes: SetAttributes(read_attributes(attributes)),
    "permissions": lambda permissions: SetPermissions(read_permissions(permissions)),
    "disappear_after": lambda span: SetTimer(read_timer(span)),
    "add": _read_add,
    "remove": lambda change: Remove(_id(change.user_id), change.ban),
    "unban": lambda change: Unban(_id(change.user_id)),
    "leave": lambda _change: Leave(),
    "set_role": _read_set_role,
    "transfer_ownership": lambda change: Transfer(_id(change.user_id)),
    "set_link": _read_link,
    "remove_link": lambda _change: SetLink(None),
}


def logged_change(change: change_pb2.Change) -> bytes:
    """What the log says of a change: of a link not its key, by which passwords could be tried."""
    logged = change_pb2.Change()
    logged.CopyFrom(change)
    if logged.HasField("set_link"):
        logged.set_link.ClearField("key_hash")
    return logged.SerializeToString()


def logged_creation(user_ids: Sequence[bytes]) -> bytes:
    """What the log says of the making of a group."""
    created = change_pb2.Created(user_ids=user_ids)
    return change_pb2.Change(created=created).SerializeToString()


def logged_leaving() -> bytes:
    """What the log says of a member who leaves."""
    return change_pb2.Change(leave=change_pb2.Leave()).SerializeToString()


def logged_joining() -> bytes:
    """What the log says of one who came by the link."""
    return change_pb2.Change(joined=change_pb2.Joined()).SerializeToString()
