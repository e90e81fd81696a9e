"""Changes of groups on their shards: revisions without a gap, links, device epochs, stale sends."""

import asyncio
import hashlib
from datetime import timedelta

import pytest

from mesh.clock import SystemClock
from mesh.errors import PermissionDenied, WhimbrelError
from mesh.ids import random_id, slot_of, ulid_text
from svc_message.groups.departing import Departing
from svc_message.groups.model import (
    Add,
    GroupFull,
    GroupUnknown,
    Leave,
    Link,
    LinkInvalid,
    MemberNotAddable,
    MemberUnknown,
    Permissions,
    Remove,
    Role,
    SetLink,
    SetPermissions,
    SetRole,
    Transfer,
)
from svc_message.identity.buckets import RateLimited
from svc_message.identity.personal import Audience, Personal, Privacy
from svc_message.identity.personal_store import PersonalStore
from svc_message.settings import Settings
from tests.svc_message.groups.conftest import caller


async def roles_of(world, group, reader) -> dict[bytes, Role]:
    _, members = await world.groups.get(caller(reader), group.group_id)
    return {member.user_id: member.role for member in members}


async def test_the_same_creation_makes_one_group(world, people):
    profile = (await world.create(people[0])).profile
    creation_id = random_id()

    made = [
        await world.groups.create(caller(people[0]), creation_id, profile, people[1:3], logged=b"")
        for _ in range(2)
    ]

    assert made[0] == made[1]
    assert await roles_of(world, made[0], people[1]) == {
        people[0]: Role.OWNER,
        people[1]: Role.MEMBER,
        people[2]: Role.MEMBER,
    }


async def test_an_account_that_does_not_exist_is_not_added(world, people):
    group = await world.create(people[0])

    for change in (Add((people[1], random_id())), SetRole(people[1], Role.ADMIN)):
        with pytest.raises(MemberUnknown):
            await world.change(people[0], group.group_id, change)

    assert list(await roles_of(world, group, people[0])) == [people[0]]


async def test_people_are_added_only_by_whom_they_allow(world, people, shards):
    ann, ben, cid, dan = people[:4]
    personal = Personal(PersonalStore(shards))
    group = await world.create(ann)
    await personal.block(caller(ben), ann)
    await personal.set_privacy(caller(cid), Privacy(to_groups=Audience.NOBODY))
    await personal.set_privacy(caller(dan), Privacy(to_groups=Audience.CONTACTS))

    for user in (ben, cid, dan):
        with pytest.raises(MemberNotAddable) as refusal:
            await world.change(ann, group.group_id, Add((people[4], user)))
        assert refusal.value.metadata == {"user_id": ulid_text(user)}
        with pytest.raises(MemberNotAddable):
            await world.create(ann, [user])
    assert list(await roles_of(world, group, ann)) == [ann]

    await world.core.send(dan, ann)
    assert await world.change(ann, group.group_id, Add((dan,))) == 2
    await personal.set_privacy(caller(dan), Privacy(to_groups=Audience.NOBODY))
    assert await world.change(ann, group.group_id, Add((dan,))) == 2  # a repetition
    key = b"k" * 32
    link = Link(hashlib.sha256(key).digest(), needs_approval=True)
    await world.change(ann, group.group_id, SetLink(link))
    await world.groups.join(caller(cid), group.group_id, key, logged=b"")
    assert await world.change(ann, group.group_id, Add((cid,))) == 4  # who asked is let in
    assert set(await roles_of(world, group, ann)) == {ann, cid, dan}


async def test_changes_at_once_make_revisions_without_a_gap_and_none_is_lost(world, people):
    owner, *others = people[:16]
    group = await world.create(owner)

    numbers = await asyncio.gather(
        *(world.change(owner, group.group_id, Add((other,))) for other in others)
    )

    assert sorted(numbers) == list(range(2, 17))
    changes = await world.groups.changes(caller(owner), group.group_id, 0, 0)
    assert [change.revision for change in changes.changes] == list(range(1, 17))
    assert set(await roles_of(world, group, owner)) == {owner, *others}


async def test_of_two_who_would_be_owner_at_once_one_is(world, people):
    owner, one, other = people[:3]
    group = await world.create(owner, [one, other])

    results = await asyncio.gather(
        *(world.change(owner, group.group_id, Transfer(to)) for to in (one, other)),
        return_exceptions=True,
    )

    roles = await roles_of(world, group, owner)
    assert sorted(roles.values()) == [Role.MEMBER, Role.ADMIN, Role.OWNER]
    assert sum(isinstance(result, PermissionDenied) for result in results) == 1


async def test_no_more_join_at_once_than_the_group_takes(world, people):
    owner, *others = people
    world.groups._most_members = 10
    group = await world.create(owner)

    results = await asyncio.gather(
        *(world.change(owner, group.group_id, Add((other,))) for other in others),
        return_exceptions=True,
    )

    assert sum(isinstance(result, GroupFull) for result in results) == len(others) - 9
    assert len(await roles_of(world, group, owner)) == 10


async def test_a_group_takes_its_5000th_member_and_no_5001st_in_any_way(world, people):
    owner, member, last, late = people[:4]
    world.groups._most_members = Settings.model_fields["most_group_members"].default
    key = b"k" * 32
    group = await world.create(owner, [member])
    await world.change(owner, group.group_id, SetLink(Link(hashlib.sha256(key).digest())))
    pool = world.shards.pool(world.shards.shard_of(slot_of(group.group_id)))
    await pool.execute(_FILL, group.group_id, 4999)

    await world.change(owner, group.group_id, Add((last,)))
    with pytest.raises(GroupFull) as full:
        await world.change(owner, group.group_id, Add((late,)))
    with pytest.raises(GroupFull):
        await world.groups.join(caller(late), group.group_id, key, logged=b"")
    await world.change(owner, group.group_id, Remove(member))
    await world.groups.join(caller(late), group.group_id, key, logged=b"")

    assert full.value.metadata == {"allowed": "5000"}
    roles = await roles_of(world, group, owner)
    assert (len(roles), {last, late} <= roles.keys(), member in roles) == (5000, True, False)


_FILL = """
WITH grown AS (UPDATE chat_group SET member_count = $2 WHERE group_id = $1)
INSERT INTO member (group_id, user_id, joined_revision, joined_seq, prev_seq, role)
SELECT $1, substr(sha256(n::text::bytea), 1, 16), 1, 0, 0, 2 FROM generate_series(3, $2) AS n
"""


async def test_a_member_hears_of_nothing_from_before_they_came(world, people):
    owner, early, late = people[:3]
    group = await world.create(owner, [early])
    await world.change(owner, group.group_id, Remove(early))
    await world.change(owner, group.group_id, Add((late,)))

    changes = await world.groups.changes(caller(late), group.group_id, 0, 0)

    assert [change.revision for change in changes.changes] == [3]
    with pytest.raises(GroupUnknown):
        await world.groups.changes(caller(early), group.group_id, 0, 0)


async def test_sends_of_those_who_may_not_are_refused(world, people):
    owner, muted, gone, member, stranger = people[:5]
    group = await world.create(owner, [muted, gone, member])
    await world.change(owner, group.group_id, SetRole(muted, Role.MUTED))
    await world.change(owner, group.group_id, Remove(gone, ban=True))

    reasons = {}
    for sender in (muted, gone, stranger):
        reasons[sender] = (await world.send(sender, group.group_id)).refusal.reason
    assert (await world.send(member, group.group_id)).seq == 1
    await world.change(
        owner, group.group_id, SetPermissions(Permissions(send=Role.ADMIN))
    )  # announcement-only
    reasons[member] = (await world.send(member, group.group_id)).refusal.reason

    assert reasons == {
        muted: "CALLER_NOT_ALLOWED",
        gone: "GROUP_UNKNOWN",
        stranger: "GROUP_UNKNOWN",
        member: "CALLER_NOT_ALLOWED",
    }
    assert (await world.send(owner, group.group_id)).seq == 2


async def test_a_send_that_is_behind_gets_the_changes_and_one_that_is_ahead_is_refused(
    world, people
):
    owner, member = people[:2]
    group = await world.create(owner, [member])
    revision, epoch = await world.standing(group.group_id)
    await world.change(owner, group.group_id, Remove(member))

    behind = await world.send(owner, group.group_id, at=(revision, epoch))
    ahead = await world.send(owner, group.group_id, at=(revision + 2, epoch))
    ahead_in_epoch = await world.send(owner, group.group_id, at=(revision + 1, epoch + 1))

    assert behind.first is None
    assert behind.changes.revision == revision + 1
    assert [change.revision for change in behind.changes.changes] == [revision + 1]
    assert ahead.refusal.metadata["field"] == ahead_in_epoch.refusal.metadata["field"] == "revision"
    assert (await world.send(owner, group.group_id)).seq == 1


async def test_a_change_of_devices_is_the_next_epoch_of_the_members_groups_alone(world, people):
    owner, member, stranger = people[:3]
    group = await world.create(owner, [member])
    other = await world.create(stranger)
    before = await world.standing(group.group_id)

    await world.link_device(member, 2)
    async with asyncio.timeout(10):
        while (await world.standing(group.group_id))[1] == before[1]:
            await asyncio.sleep(0.01)

    behind = await world.send(owner, group.group_id, at=before)
    assert [user for _, user in behind.changes.device_changes] == [member]
    assert behind.changes.changes == []
    assert await world.standing(other.group_id) == (1, 1)


async def test_a_link_with_approval_lets_an_admin_decide(world, people):
    owner, comes, declined = people[:3]
    key = b"k" * 32
    group = await world.create(owner)
    link = Link(hashlib.sha256(key).digest(), needs_approval=True)
    await world.change(owner, group.group_id, SetLink(link))

    for user in (comes, declined, comes):
        assert await world.groups.join(caller(user), group.group_id, key, logged=b"") is None
    waiting = await world.groups.join_requests(caller(owner), group.group_id)
    await world.change(owner, group.group_id, Add((comes,)))
    await world.groups.decline_join(caller(owner), group.group_id, declined)

    assert [user for user, _ in waiting] == [comes, declined]
    assert await world.groups.join_requests(caller(owner), group.group_id) == []
    assert set(await roles_of(world, group, owner)) == {owner, comes}
    with pytest.raises(PermissionDenied):
        await world.groups.join_requests(caller(comes), group.group_id)


async def test_a_link_of_two_uses_lets_in_two_however_many_come_at_once(world, people):
    owner, *others = people[:9]
    key = b"k" * 32
    group = await world.create(owner)
    await world.change(
        owner, group.group_id, SetLink(Link(hashlib.sha256(key).digest(), uses_left=2))
    )

    results = await asyncio.gather(
        *(world.groups.join(caller(user), group.group_id, key, logged=b"") for user in others),
        return_exceptions=True,
    )

    assert sum(isinstance(result, LinkInvalid) for result in results) == len(others) - 2
    assert len(await roles_of(world, group, owner)) == 3


async def test_a_link_ends_by_the_shard_s_clock(world, people):
    owner, early, late = people[:3]
    key = b"k" * 32
    group = await world.create(owner)
    ends = SystemClock().now() + timedelta(hours=1)
    link = Link(hashlib.sha256(key).digest(), expires_at=ends)
    await world.change(owner, group.group_id, SetLink(link))
    await world.groups.join(caller(early), group.group_id, key, logged=b"")
    pool = world.shards.pool(world.shards.shard_of(slot_of(group.group_id)))
    await pool.execute(
        "UPDATE group_profile SET link_expires_at = clock_timestamp() WHERE group_id = $1",
        group.group_id,
    )

    with pytest.raises(LinkInvalid):
        await world.groups.join(caller(late), group.group_id, key, logged=b"")

    assert set(await roles_of(world, group, owner)) == {owner, early}


async def test_whoever_guesses_links_is_slowed_down(world, people):
    group = await world.create(people[0])
    guesses = []
    for _ in range(11):
        with pytest.raises(WhimbrelError) as refused:
            await world.groups.join(caller(people[1]), group.group_id, random_id() * 2, logged=b"")
        guesses.append(refused.type)

    assert guesses == [LinkInvalid] * 10 + [RateLimited]


async def test_a_revoked_caller_changes_nothing(world, people, shards):
    owner = people[0]
    group = await world.create(owner)
    await shards.pool(shards.shard_of(slot_of(owner))).execute(
        "SELECT remove_device($1, 1::smallint)", owner
    )

    with pytest.raises(WhimbrelError) as refused:
        await world.change(owner, group.group_id, Leave())

    assert refused.value.reason == "DEVICE_REVOKED"


async def test_an_account_that_ends_leaves_its_groups_and_an_owner_leaves_an_heir(world, people):
    owner, member, admin = people[:3]
    group = await world.create(owner, [member, admin])
    await world.change(owner, group.group_id, SetRole(admin, Role.ADMIN))
    other = await world.create(member, [owner])
    departing = Departing(world.groups._store, logged=b"")

    for _ in range(2):
        await departing.depart(owner)

    assert await roles_of(world, group, admin) == {admin: Role.OWNER, member: Role.MEMBER}
    assert await roles_of(world, other, member) == {member: Role.OWNER}


async def test_whose_a_message_was_is_forgotten_when_it_is_old(world, people):
    owner, member = people[:2]
    group = await world.create(owner, [member])
    for _ in range(2):
        await world.send(owner, group.group_id)
    await world.quiet()
    pool = world.shards.pool(world.shards.shard_of(slot_of(group.group_id)))
    await pool.execute(
        "UPDATE group_message SET accepted_at = now() - '31 days'::interval WHERE seq = 1"
    )

    await world.core.core.groups.sweep()

    assert [row["seq"] for row in await pool.fetch("SELECT seq FROM group_message")] == [2]


async def test_a_group_without_members_is_forgotten_and_never_made_again(world, people):
    owner = people[0]
    creation_id, profile = random_id(), (await world.create(owner)).profile
    group = await world.groups.create(caller(owner), creation_id, profile, (), logged=b"")
    await world.send(owner, group.group_id)
    await world.quiet()
    await world.change(owner, group.group_id, Leave())
    pool = world.shards.pool(world.shards.shard_of(slot_of(group.group_id)))
    sweep = world.core.core.groups.sweep

    await sweep()
    assert await left_of(pool, group.group_id) > 1  # not before its messages are forgotten
    await pool.execute("UPDATE group_change SET changed_at = now() - '31 days'::interval")
    await sweep()

    assert await left_of(pool, group.group_id) == 1
    assert (await world.groups.groups_of(caller(owner)))[0].group_id != group.group_id
    with pytest.raises(GroupUnknown):
        await world.groups.create(caller(owner), creation_id, profile, (), logged=b"")


async def left_of(pool, group_id) -> int:
    """How many rows there are of a group on its shard."""
    tables = await pool.fetch(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'group_id'"
    )
    counts = [
        await pool.fetchval(
            f"SELECT count(*) FROM {row['table_name']} WHERE group_id = $1", group_id
        )
        for row in tables
    ]
    return sum(counts) + await pool.fetchval(
        "SELECT count(*) FROM receipt_counter WHERE user_id = $1", group_id
    )


async def test_the_last_thousand_device_epochs_are_kept(world, people):
    group = await world.create(people[0])
    pool = world.shards.pool(world.shards.shard_of(slot_of(group.group_id)))
    for _ in range(15):  # a transaction finds its own old versions of a row in its way
        await pool.execute(
            "DO $$BEGIN FOR n IN 1..67 LOOP"
            f" PERFORM next_device_epochs('\\x{people[0].hex()}'); END LOOP; END$$"
        )

    changes = await world.groups.changes(caller(people[0]), group.group_id, 1, 1)

    assert (changes.device_epoch, changes.device_changes[0][0]) == (1006, 7)
