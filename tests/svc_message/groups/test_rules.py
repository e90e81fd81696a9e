"""Who may change what, decided without any store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import PermissionDenied, WhimbrelError
from svc_message.groups.model import (
    Add,
    Group,
    GroupFull,
    GroupUnknown,
    Join,
    Leave,
    Link,
    LinkInvalid,
    MemberBanned,
    MemberUnknown,
    Permissions,
    Profile,
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
from svc_message.groups.rules import decide

NOW = datetime(2026, 11, 24, tzinfo=UTC)
OWNER, ADMIN, MEMBER, MUTED = (bytes([n]) * 16 for n in range(4))
STRANGER, BANNED = b"s" * 16, b"b" * 16
KEY = b"k" * 32
ROLES = {OWNER: Role.OWNER, ADMIN: Role.ADMIN, MEMBER: Role.MEMBER, MUTED: Role.MUTED}
PROFILE = Profile(b"name", link=Link(KEY))


def a_group(**profile) -> Group:
    return Group(
        b"g" * 16, 7, 1, 4, replace(PROFILE, **profile), ROLES, frozenset({BANNED}), now=NOW
    )


def decided(actor, change, group=None, *, most=10):
    return decide(group or a_group(), actor, change, most_members=most)


ADMINS_CHANGES = [
    SetAttributes(b"other"),
    SetTimer(timedelta(days=1)),
    SetPermissions(Permissions(send=Role.ADMIN)),
    SetLink(None),
    Add((STRANGER,)),
    Remove(MEMBER),
    Remove(MEMBER, ban=True),
    Unban(BANNED),
    SetRole(MEMBER, Role.MUTED),
]


@pytest.mark.parametrize("change", ADMINS_CHANGES, ids=lambda change: type(change).__name__)
def test_admins_and_the_owner_may_and_members_and_strangers_may_not(change):
    for actor in (OWNER, ADMIN):
        assert decided(actor, change) is not None
    for actor in (MEMBER, MUTED):
        with pytest.raises(PermissionDenied):
            decided(actor, change)
    with pytest.raises(GroupUnknown):
        decided(STRANGER, change)


def test_permissions_let_members_add_and_edit_but_never_the_muted():
    open_group = a_group(permissions=Permissions(Role.MEMBER, Role.MEMBER, Role.MEMBER))

    for change in (Add((STRANGER,)), SetAttributes(b"other"), SetTimer(timedelta(hours=1))):
        assert decided(MEMBER, change, open_group) is not None
        with pytest.raises(PermissionDenied):
            decided(MUTED, change, open_group)


@pytest.mark.parametrize("target", [OWNER, ADMIN])
def test_an_admin_touches_nobody_of_their_own_rank_or_above(target):
    for change in (Remove(target), Remove(target, ban=True), SetRole(target, Role.MEMBER)):
        with pytest.raises(PermissionDenied):
            decided(ADMIN, change)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OWNER])
def test_an_admin_makes_no_admins_and_nobody_makes_an_owner_by_a_role(role):
    with pytest.raises(PermissionDenied):
        decided(ADMIN, SetRole(MEMBER, role))
    with pytest.raises(PermissionDenied):
        decided(OWNER, SetRole(MEMBER, Role.OWNER))
    assert decided(OWNER, SetRole(MEMBER, Role.ADMIN)).changing == {MEMBER: Role.ADMIN}


def test_ownership_goes_to_one_member_and_the_owner_stays_an_admin():
    assert decided(OWNER, Transfer(MEMBER)).changing == {MEMBER: Role.OWNER, OWNER: Role.ADMIN}
    for actor in (ADMIN, MEMBER):
        with pytest.raises(PermissionDenied):
            decided(actor, Transfer(MEMBER))
    with pytest.raises(MemberUnknown):
        decided(OWNER, Transfer(STRANGER))


def test_the_owner_leaves_only_an_empty_group():
    with pytest.raises(PermissionDenied):
        decided(OWNER, Leave())
    assert decided(MUTED, Leave()).leaving == (MUTED,)
    alone = replace(a_group(), member_count=1, roles={OWNER: Role.OWNER})
    assert decided(OWNER, Leave(), alone).leaving == (OWNER,)


@pytest.mark.parametrize(
    "change",
    [
        Add((MEMBER,)),
        Remove(STRANGER),
        Unban(STRANGER),
        SetRole(MEMBER, Role.MEMBER),
        SetAttributes(b"name"),
        Transfer(OWNER),
        Join(KEY),
    ],
    ids=lambda change: type(change).__name__,
)
def test_what_is_so_already_is_no_change(change):
    assert decided(OWNER, change) is None


def test_a_full_group_takes_nobody_and_a_banned_person_is_not_added():
    with pytest.raises(GroupFull):
        decided(OWNER, Add((STRANGER, b"t" * 16)), most=5)
    assert len(decided(OWNER, Add((STRANGER,)), most=5).joining) == 1
    with pytest.raises(GroupFull):
        decided(STRANGER, Join(KEY), most=4)
    with pytest.raises(MemberBanned):
        decided(OWNER, Add((BANNED,)))


def test_a_link_lets_in_whoever_has_its_key_while_it_lasts():
    for link in (None, Link(b"o" * 32), Link(KEY, expires_at=NOW)):
        with pytest.raises(LinkInvalid):
            decided(STRANGER, Join(KEY), a_group(link=link))
    with pytest.raises(MemberBanned):
        decided(BANNED, Join(KEY))

    later = a_group(link=Link(KEY, expires_at=NOW + timedelta(seconds=1)))
    assert decided(STRANGER, Join(KEY), later).joining == {STRANGER: Role.MEMBER}


def test_each_coming_uses_the_link_up_and_the_last_one_ends_it():
    twice = decided(STRANGER, Join(KEY), a_group(link=Link(KEY, uses_left=2)))
    once = decided(STRANGER, Join(KEY), a_group(link=Link(KEY, uses_left=1)))

    assert twice.profile.link == Link(KEY, uses_left=1)
    assert once.profile.link is None


people = st.sampled_from([OWNER, ADMIN, MEMBER, MUTED, STRANGER, BANNED])
changes = st.one_of(
    st.builds(Add, st.lists(people, min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(Remove, people, st.booleans()),
    st.builds(Unban, people),
    st.just(Leave()),
    st.builds(SetRole, people, st.sampled_from(Role)),
    st.builds(Transfer, people),
    st.builds(Join, st.sampled_from([KEY, b"x" * 32])),
)


@given(st.lists(st.tuples(people, changes), max_size=30))
def test_whatever_is_asked_there_is_one_owner_and_no_member_is_banned(steps):
    group = a_group()
    for actor, change in steps:
        try:
            revision = decide(group, actor, change, most_members=5)
        except WhimbrelError:
            continue
        if revision is None:
            continue
        stay = {user: role for user, role in group.roles.items() if user not in revision.leaving}
        roles = {**stay, **revision.joining, **revision.changing}
        banned = (group.banned | set(revision.banning)) - set(revision.unbanning)
        group = replace(
            group, roles=roles, banned=banned, member_count=len(roles), profile=revision.profile
        )

        assert list(roles.values()).count(Role.OWNER) == (1 if roles else 0)
        assert not banned & roles.keys()
        assert len(roles) <= 5
