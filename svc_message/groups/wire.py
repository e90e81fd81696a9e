"""Groups as protobuf: changes read, groups and logs written."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from mesh.errors import InvalidArgument
from svc_message.groups.model import (
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


def read_change(change: change_pb2.Change) -> Change:
    """The change that is asked for. Raises InvalidArgument for what is only in the log."""
    kind = change.WhichOneof("change") or ""
    read = _READERS.get(kind)
    if read is None:
        raise InvalidArgument(
            "not a change to ask for", metadata={"field": "change", "allowed": ", ".join(_READERS)}
        )
    return read(getattr(change, kind))


def read_timer(span: Duration) -> timedelta:
    """How long messages stay once they are read."""
    return timedelta(seconds=span.seconds)


def read_permissions(permissions: change_pb2.Permissions) -> Permissions:
    """The permissions, all three."""
    return Permissions(*map(Role, (permissions.send, permissions.add, permissions.edit)))


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


def _read_link(link: change_pb2.InviteLink) -> Change:
    expires_at = link.expires_at.ToDatetime(UTC) if link.HasField("expires_at") else None
    return SetLink(
        Link(link.key_hash, link.has_password, expires_at, link.uses_left, link.needs_approval)
    )


_READERS: Mapping[str, Callable[[Any], Change]] = {
    "attributes": SetAttributes,
    "permissions": lambda permissions: SetPermissions(read_permissions(permissions)),
    "disappear_after": lambda span: SetTimer(read_timer(span)),
    "add": lambda change: Add(tuple(change.user_ids)),
    "remove": lambda change: Remove(change.user_id, change.ban),
    "unban": lambda change: Unban(change.user_id),
    "leave": lambda _change: Leave(),
    "set_role": lambda change: SetRole(change.user_id, Role(change.role)),
    "transfer_ownership": lambda change: Transfer(change.user_id),
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
