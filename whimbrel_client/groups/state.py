"""Groups as they stand here: the SQL of them, each call in a transaction of the local store."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from whimbrel.group.v1 import change_pb2, group_pb2
from whimbrel_client.groups import attributes
from whimbrel_client.groups.model import Group, Permissions, Role
from whimbrel_client.sqlcipher import Connection

_STATES = """
SELECT group_id, revision, device_epoch, is_member, is_behind, attributes, group_key,
    send_role, add_role, edit_role, disappear_after
FROM group_state
"""
_STATE = _STATES + "WHERE group_id = ?"
_MEET = "INSERT OR IGNORE INTO group_state (group_id) VALUES (?)"
_PUT = """
UPDATE group_state SET revision = ?2, device_epoch = ?3, is_member = ?4, is_behind = ?5,
    attributes = ?6, group_key = ?7, send_role = ?8, add_role = ?9, edit_role = ?10,
    disappear_after = ?11
WHERE group_id = ?1
"""
_MEMBERS = "SELECT user_id, role FROM group_member WHERE group_id = ?"
_STAYS = "SELECT user_id, joined_revision FROM group_member WHERE group_id = ?"
_JOINED = "SELECT joined_revision FROM group_member WHERE group_id = ? AND user_id = ?"
_ADD = """
INSERT INTO group_member (group_id, user_id, role, joined_revision) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (group_id, user_id) DO UPDATE
SET role = excluded.role, joined_revision = excluded.joined_revision WHERE ?5
"""
_SET_ROLE = "UPDATE group_member SET role = ?3 WHERE group_id = ?1 AND user_id = ?2"
_DEPART = "DELETE FROM group_member WHERE group_id = ? AND user_id = ?"
_KEY_TABLES = ("sender_key", "key_holder", "hand_out")


class GroupState(NamedTuple):
    """A row of `group_state`."""

    group_id: bytes
    revision: int
    device_epoch: int
    is_member: int
    is_behind: int
    attributes: bytes
    group_key: bytes
    send_role: int
    add_role: int
    edit_role: int
    # Milliseconds.
    disappear_after: int


def load(connection: Connection, group_id: bytes) -> GroupState | None:
    """The group; None: never heard of here."""
    row = connection.execute(_STATE, (group_id,)).fetchone()
    return None if row is None else GroupState(*row)


def load_all(connection: Connection) -> list[GroupState]:
    """All groups that were ever heard of here."""
    return [GroupState(*row) for row in connection.execute(_STATES).fetchall()]


def meet(connection: Connection, group_id: bytes) -> GroupState:
    """The group; heard of for the first time, perhaps."""
    connection.execute(_MEET, (group_id,))
    return GroupState(*connection.execute(_STATE, (group_id,)).fetchone())


def put(connection: Connection, state: GroupState) -> None:
    """Keep it."""
    connection.execute(_PUT, state)


def fall_behind(connection: Connection, group_id: bytes) -> None:
    """The mesh is further than this device; what is to be sent waits."""
    put(connection, meet(connection, group_id)._replace(is_behind=True))


def members(connection: Connection, group_id: bytes) -> dict[bytes, Role]:
    """Who is in it now."""
    rows = connection.execute(_MEMBERS, (group_id,)).fetchall()
    return {user_id: Role(role) for user_id, role in rows}


def knows(connection: Connection, group_id: bytes, user_id: bytes) -> bool:
    """Whether all is known of the group that is known to have changed, and of this member."""
    is_behind = meet(connection, group_id).is_behind
    return not is_behind and joined_revision(connection, group_id, user_id) is not None


def joined_revision(connection: Connection, group_id: bytes, user_id: bytes) -> int | None:
    """The revision by which a member came; None: no member, as far as is known here."""
    row = connection.execute(_JOINED, (group_id, user_id)).fetchone()
    return None if row is None else int(row[0])


def group_of(connection: Connection, state: GroupState) -> Group:
    """As the application sees it."""
    said = attributes.unseal(state.attributes, state.group_key)
    return Group(
        group_id=state.group_id,
        name=said.name if said else "",
        description=said.description if said else "",
        revision=state.revision,
        is_member=bool(state.is_member),
        permissions=Permissions(Role(state.send_role), Role(state.add_role), Role(state.edit_role)),
        disappear_after=timedelta(milliseconds=state.disappear_after) or None,
        members=members(connection, state.group_id),
    )


def replace(
    connection: Connection,
    own: bytes,
    group: group_pb2.Group,
    listed: Sequence[group_pb2.Member],
) -> None:
    """The group is as the mesh says, whatever was known of it.

    If anybody's devices may have changed, the key is handed out anew to those who lack it.
    """
    state = meet(connection, group.group_id)
    if state.revision > group.revision:
        return  # a change that was made meanwhile is known already
    there = {member.user_id: member.joined_revision for member in listed}
    stays = connection.execute(_STAYS, (group.group_id,)).fetchall()
    have_devices_changed = not state.revision or state.device_epoch != group.device_epoch
    # Who has come again has left in between.
    _depart(connection, group.group_id, [one for one, since in stays if there.get(one) != since])
    state = state._replace(
        revision=group.revision,
        device_epoch=group.device_epoch,
        is_member=own in there,
        is_behind=False,
        attributes=group.attributes,
        disappear_after=group.disappear_after.ToMilliseconds(),
    )
    put(connection, _permitted(state, group.permissions))
    for member in listed:
        row = (group.group_id, member.user_id, member.role, member.joined_revision, True)
        connection.execute(_ADD, row)
    if have_devices_changed:
        connection.execute("DELETE FROM hand_out WHERE group_id = ?", (group.group_id,))


def change(
    connection: Connection,
    own: bytes,
    group_id: bytes,
    changes: Sequence[change_pb2.LoggedChange],
    device_changes: Sequence[change_pb2.DeviceChange],
    *,
    revision: int,
    device_epoch: int,
) -> bool:
    """Do what has changed, as far as it joins on to what is known; whether all is known now."""
    state = meet(connection, group_id)
    for logged in changes:
        if state.revision and logged.revision == state.revision + 1:
            state = _changed(connection, own, state, logged)
    for one in device_changes:
        if one.device_epoch <= state.device_epoch:
            continue
        is_gap = one.device_epoch > state.device_epoch + 1
        users = None if is_gap else one.user_id
        connection.execute(
            "DELETE FROM hand_out WHERE group_id = ?1 AND (?2 IS NULL OR user_id = ?2)",
            (group_id, users),
        )
        state = state._replace(device_epoch=one.device_epoch)
    is_behind = state.revision < revision or state.device_epoch < device_epoch
    put(connection, state._replace(is_behind=is_behind))
    return not is_behind


def leave(connection: Connection, own: bytes, group_id: bytes) -> None:
    """The mesh knows no such group for this account: it was left, or is not there any more."""
    state = load(connection, group_id)
    if state is None:
        return
    if not state.revision:
        for table in ("group_state", "key_reader"):
            connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))  # noqa: S608
        return
    put(connection, state._replace(is_member=False, is_behind=False))
    _depart(connection, group_id, [own])


def forget_key(connection: Connection, group_id: bytes) -> None:
    """Somebody who may have the sender key must not read on: the next message gets a new one."""
    for table in _KEY_TABLES:
        connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))  # noqa: S608


def _changed(
    connection: Connection, own: bytes, state: GroupState, logged: change_pb2.LoggedChange
) -> GroupState:
    group_id, change_ = state.group_id, logged.change
    state = state._replace(revision=logged.revision)
    match change_.WhichOneof("change"):
        case "attributes":
            return state._replace(attributes=change_.attributes)
        case "permissions":
            return _permitted(state, change_.permissions)
        case "disappear_after":
            return state._replace(disappear_after=change_.disappear_after.ToMilliseconds())
        case "add" | "created" | "joined":
            _join(connection, group_id, logged)
        case "remove":
            _depart(connection, group_id, [change_.remove.user_id])
        case "leave":
            _depart(connection, group_id, [logged.actor_id])
        case "set_role":
            role = (group_id, change_.set_role.user_id, change_.set_role.role)
            connection.execute(_SET_ROLE, role)
        case "transfer_ownership":
            owner = change_.transfer_ownership.user_id
            connection.execute(_SET_ROLE, (group_id, logged.actor_id, Role.ADMIN))
            connection.execute(_SET_ROLE, (group_id, owner, Role.OWNER))
    return state._replace(is_member=own in members(connection, group_id))


def _join(connection: Connection, group_id: bytes, logged: change_pb2.LoggedChange) -> None:
    change_, roles = logged.change, dict[bytes, Role]()
    if change_.HasField("created"):
        roles = dict.fromkeys(change_.created.user_ids, Role.MEMBER)
        roles[logged.actor_id] = Role.OWNER
    elif change_.HasField("add"):
        roles = dict.fromkeys(change_.add.user_ids, Role.MEMBER)
    else:
        roles = {logged.actor_id: Role.MEMBER}
    for user_id, role in roles.items():
        connection.execute(_ADD, (group_id, user_id, role, logged.revision, False))


def _depart(connection: Connection, group_id: bytes, user_ids: Iterable[bytes]) -> None:
    """They are members no more: who had the key must not read what is written from now on."""
    for user_id in user_ids:
        if connection.execute(_DEPART, (group_id, user_id)).rowcount:
            forget_key(connection, group_id)


def _permitted(state: GroupState, permissions: change_pb2.Permissions) -> GroupState:
    return state._replace(
        send_role=permissions.send or Role.MEMBER,
        add_role=permissions.add or Role.ADMIN,
        edit_role=permissions.edit or Role.ADMIN,
    )
