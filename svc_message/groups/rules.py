"""Who may change what in a group, and what a change makes of it; pure."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mesh.errors import PermissionDenied
from mesh.ids import ulid_text
from svc_message.groups.model import (
    Add,
    Change,
    Group,
    GroupFull,
    GroupUnknown,
    Join,
    Leave,
    LinkInvalid,
    MemberBanned,
    MemberUnknown,
    Remove,
    Revision,
    Role,
    SetAttributes,
    SetLink,
    SetPermissions,
    SetRole,
    SetTimer,
    Transfer,
    Unban,
)


def decide(group: Group, actor_id: bytes, change: Change, *, most_members: int) -> Revision | None:
    """What the change makes of the group; None if all is so already.

    Raises GroupUnknown, PermissionDenied, MemberUnknown, MemberBanned, GroupFull, LinkInvalid.
    """
    if isinstance(change, Join):
        revision = _join(group, actor_id, change)
    else:
        role = group.roles.get(actor_id)
        if role is None:
            raise GroupUnknown("no such group, or the caller is no member of it")
        revision = _RULES[type(change)](group, actor_id, role, change)
    if revision == Revision(group.profile):
        return None
    if len(revision.joining) > max(most_members - group.member_count, 0):
        raise GroupFull(
            "the group has as many members as it may have", metadata={"allowed": str(most_members)}
        )
    return revision


def check_link(group: Group, key_hash: bytes) -> None:
    """Return if the link may be used with this key. Raises LinkInvalid."""
    link = group.profile.link
    is_good = link is not None and hmac.compare_digest(link.key_hash, key_hash)
    is_over = (
        link is not None
        and link.expires_at is not None
        and group.now is not None
        and link.expires_at <= group.now
    )
    if not is_good or is_over:
        raise LinkInvalid("the key is wrong, or the link has ended or is used up")


def demand_role(role: Role, least: Role) -> None:
    """Return if the role is enough. Raises PermissionDenied."""
    if role < least:
        raise PermissionDenied(f"this takes the role {least.name}")


def _join(group: Group, actor_id: bytes, change: Join) -> Revision:
    if actor_id in group.roles:
        return Revision(group.profile)
    check_link(group, change.key_hash)
    if actor_id in group.banned:
        raise MemberBanned("the account is banned from the group")
    link = group.profile.link
    if link is not None and link.uses_left:
        # With its last use the link ends.
        left = link.uses_left - 1
        profile = replace(group.profile, link=replace(link, uses_left=left) if left else None)
        return Revision(profile, joining={actor_id: Role.MEMBER})
    return Revision(group.profile, joining={actor_id: Role.MEMBER})


def _set_attributes(group: Group, _actor: bytes, role: Role, change: SetAttributes) -> Revision:
    demand_role(role, group.profile.permissions.edit)
    return Revision(replace(group.profile, attributes=change.attributes))


def _set_timer(group: Group, _actor: bytes, role: Role, change: SetTimer) -> Revision:
    demand_role(role, group.profile.permissions.edit)
    return Revision(replace(group.profile, disappear_after=change.disappear_after))


def _set_permissions(group: Group, _actor: bytes, role: Role, change: SetPermissions) -> Revision:
    demand_role(role, Role.ADMIN)
    return Revision(replace(group.profile, permissions=change.permissions))


def _set_link(group: Group, _actor: bytes, role: Role, change: SetLink) -> Revision:
    demand_role(role, Role.ADMIN)
    return Revision(replace(group.profile, link=change.link))


def _add(group: Group, _actor: bytes, role: Role, change: Add) -> Revision:
    demand_role(role, group.profile.permissions.add)
    new = [user_id for user_id in change.user_ids if user_id not in group.roles]
    for user_id in new:
        if user_id in group.banned:
            raise MemberBanned(
                "the account is banned from the group", metadata={"user_id": ulid_text(user_id)}
            )
    return Revision(group.profile, joining=dict.fromkeys(new, Role.MEMBER))


def _remove(group: Group, _actor: bytes, role: Role, change: Remove) -> Revision:
    demand_role(role, Role.ADMIN)
    theirs = group.roles.get(change.user_id)
    if theirs is not None and theirs >= role:
        raise PermissionDenied("only who has a higher role may remove a member")
    is_new_ban = change.ban and change.user_id not in group.banned
    return Revision(
        group.profile,
        leaving=() if theirs is None else (change.user_id,),
        banning=(change.user_id,) if is_new_ban else (),
    )


def _unban(group: Group, _actor: bytes, role: Role, change: Unban) -> Revision:
    demand_role(role, Role.ADMIN)
    is_banned = change.user_id in group.banned
    return Revision(group.profile, unbanning=(change.user_id,) if is_banned else ())


def _leave(group: Group, actor_id: bytes, role: Role, _change: Leave) -> Revision:
    if role is Role.OWNER and group.member_count > 1:
        raise PermissionDenied("the owner hands the group over first")
    return Revision(group.profile, leaving=(actor_id,))


def _set_role(group: Group, _actor: bytes, role: Role, change: SetRole) -> Revision:
    demand_role(role, Role.ADMIN)
    theirs = _role_of(group, change.user_id)
    if theirs >= role or change.role >= role:
        raise PermissionDenied("only roles below the caller's own may be taken and given")
    return Revision(
        group.profile, changing={} if theirs is change.role else {change.user_id: change.role}
    )


def _transfer(group: Group, actor_id: bytes, role: Role, change: Transfer) -> Revision:
    if _role_of(group, change.user_id) is Role.OWNER and change.user_id != actor_id:
        return Revision(group.profile)  # this was done before
    demand_role(role, Role.OWNER)
    if change.user_id == actor_id:
        return Revision(group.profile)
    return Revision(group.profile, changing={change.user_id: Role.OWNER, actor_id: Role.ADMIN})


def _role_of(group: Group, user_id: bytes) -> Role:
    role = group.roles.get(user_id)
    if role is None:
        raise MemberUnknown("not a member of the group")
    return role


_RULES: Mapping[type[Any], Callable[[Group, bytes, Role, Any], Revision]] = {
    SetAttributes: _set_attributes,
    SetPermissions: _set_permissions,
    SetTimer: _set_timer,
    Add: _add,
    Remove: _remove,
    Unban: _unban,
    Leave: _leave,
    SetRole: _set_role,
    Transfer: _transfer,
    SetLink: _set_link,
}
