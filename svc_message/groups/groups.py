"""What GroupService does: checks the caller, decides on what is there, commits, and repeats."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from mesh.caller import Caller
from mesh.errors import Unavailable
from mesh.ids import ID_BYTES, ulid_text
from svc_message.groups.model import (
    MOST_CHANGES,
    Add,
    Change,
    Changes,
    Group,
    GroupUnknown,
    Join,
    LinkInvalid,
    Member,
    MemberBanned,
    MemberNotAddable,
    MemberUnknown,
    Profile,
    Remove,
    Revision,
    Role,
    SetRole,
    Transfer,
    Unban,
)
from svc_message.groups.news import GroupNews
from svc_message.groups.rules import check_link, decide, demand_role
from svc_message.groups.store import GroupStore
from svc_message.identity.buckets import Buckets, Limit, RateLimited
from svc_message.identity.finding_store import FindingStore
from svc_message.identity.personal import may

_TRIES = 50
_MOST_REQUESTS = 500
_JOINING = Limit(permits=10, every=timedelta(minutes=1))


class Groups:
    """Makes, changes and tells of groups.

    Every call raises Unavailable, DeviceRevoked when the caller's credential holds no more,
    and GroupUnknown unless the caller is a member where that is needed.
    """

    def __init__(
        self,
        store: GroupStore,
        finding: FindingStore,
        buckets: Buckets,
        news: GroupNews,
        *,
        most_members: int,
    ) -> None:
        self._store = store
        self._finding = finding
        self._buckets = buckets
        self._news = news
        self._most_members = most_members

    async def create(
        self,
        caller: Caller,
        creation_id: bytes,
        profile: Profile,
        user_ids: Sequence[bytes],
        *,
        logged: bytes,
    ) -> Group:
        """Make the group of this creation id, once.

        Raises MemberUnknown, MemberNotAddable, GroupFull.
        """
        await self._store.check_caller(caller)
        group_id = hashlib.sha256(b"group" + caller.user_id + creation_id).digest()[:ID_BYTES]
        others = dict.fromkeys(user_ids, Role.MEMBER)
        others.pop(caller.user_id, None)
        await self._demand_accounts(list(others))
        await self._demand_addable(caller, group_id, list(others))
        empty = Group(group_id, 0, 0, 1, profile, {caller.user_id: Role.OWNER})
        if others:
            decide(empty, caller.user_id, Add(tuple(others)), most_members=self._most_members)
        revision = Revision(profile, joining={caller.user_id: Role.OWNER, **others})
        if await self._store.commit(group_id, 1, caller.user_id, revision, logged):
            self._news.note(group_id, 1, ())
        return await self._own(group_id, caller)

    async def change(
        self, caller: Caller, group_id: bytes, change: Change, *, logged: bytes
    ) -> int:
        """Make one change; the revision that it is in.

        Raises PermissionDenied, MemberUnknown, MemberNotAddable, MemberBanned, GroupFull.
        """
        await self._store.check_caller(caller)
        users = _users_of(change)
        if isinstance(change, Add):
            await self._demand_accounts(users)
            await self._demand_addable(caller, group_id, users)
        return await self._change(caller, group_id, change, users, logged)

    async def join(
        self, caller: Caller, group_id: bytes, key: bytes, *, logged: bytes
    ) -> Group | None:
        """Come in by the link; None if an admin has to approve.

        Raises LinkInvalid, MemberBanned, GroupFull, RateLimited.
        """
        await self._store.check_caller(caller)
        await self._take_permit(caller)
        join = Join(hashlib.sha256(key).digest())
        try:
            group = await self._store.read(group_id, [caller.user_id])
        except GroupUnknown:
            raise LinkInvalid("the key is wrong, or the link has ended or is used up") from None
        if caller.user_id not in group.roles:
            check_link(group, join.key_hash)
            link = group.profile.link
            if link is not None and link.needs_approval:
                if caller.user_id in group.banned:
                    raise MemberBanned("the account is banned from the group")
                await self._store.request_join(group_id, caller.user_id)
                return None
            await self._change(caller, group_id, join, [], logged)
        return await self._own(group_id, caller)

    async def get(self, caller: Caller, group_id: bytes) -> tuple[Group, list[Member]]:
        """The group and all its members; the link only for admins."""
        await self._store.check_caller(caller)
        return await self._own(group_id, caller), await self._store.members(
            group_id, caller.user_id
        )

    async def changes(
        self, caller: Caller, group_id: bytes, revision: int, device_epoch: int
    ) -> Changes:
        """What has changed since."""
        await self._store.check_caller(caller)
        return await self._store.changes(
            group_id, caller.user_id, revision, device_epoch, limit=MOST_CHANGES
        )

    async def groups_of(self, caller: Caller) -> list[Group]:
        """The caller's groups."""
        await self._store.check_caller(caller)
        return await self._store.groups_of(caller.user_id)

    async def join_requests(self, caller: Caller, group_id: bytes) -> list[tuple[bytes, datetime]]:
        """Who asks to join and since when. Raises PermissionDenied."""
        await self._demand_admin(caller, group_id)
        return await self._store.join_requests(group_id, limit=_MOST_REQUESTS)

    async def decline_join(self, caller: Caller, group_id: bytes, user_id: bytes) -> None:
        """Forget that somebody asks to join. Raises PermissionDenied."""
        await self._demand_admin(caller, group_id)
        await self._store.decline_join(group_id, user_id)

    async def message_receipts(
        self, caller: Caller, group_id: bytes, seq: int
    ) -> list[tuple[bytes, bool]]:
        """Who has received the caller's message, and read it. Raises MessageUnknown."""
        await self._store.check_caller(caller)
        return await self._store.message_receipts(group_id, caller.user_id, seq)

    async def _change(
        self,
        caller: Caller,
        group_id: bytes,
        change: Change,
        users: Sequence[bytes],
        logged: bytes,
    ) -> int:
        for _ in range(_TRIES):
            group = await self._store.read(group_id, [caller.user_id, *users])
            revision = decide(group, caller.user_id, change, most_members=self._most_members)
            if revision is None:
                return group.revision
            number = group.revision + 1
            if await self._store.commit(group_id, number, caller.user_id, revision, logged):
                self._news.note(group_id, number, revision.leaving)
                return number
        raise Unavailable("too many change the group at once")

    async def _own(self, group_id: bytes, caller: Caller) -> Group:
        group = await self._store.read(group_id, [caller.user_id])
        if caller.user_id not in group.roles:
            raise GroupUnknown("no such group, or the caller is no member of it")
        return group

    async def _demand_admin(self, caller: Caller, group_id: bytes) -> None:
        await self._store.check_caller(caller)
        group = await self._own(group_id, caller)
        demand_role(group.roles[caller.user_id], Role.ADMIN)

    async def _demand_accounts(self, user_ids: Sequence[bytes]) -> None:
        for user_id in await self._store.missing_accounts(user_ids):
            raise MemberUnknown("no such account", metadata={"user_id": ulid_text(user_id)})

    async def _demand_addable(
        self, caller: Caller, group_id: bytes, user_ids: Sequence[bytes]
    ) -> None:
        """Return if these people let the caller add them, have asked to join, or are members."""
        audiences = await self._finding.group_audiences(caller.user_id, user_ids)
        contacts = await self._finding.have_sent_to(caller.user_id, user_ids)
        unwilling = {
            user_id
            for user_id, audience, is_contact in zip(user_ids, audiences, contacts, strict=True)
            if not may(audience, is_contact=is_contact)
        } - {caller.user_id}
        if not unwilling:
            return
        asked = await self._store.join_requests(group_id, limit=_MOST_REQUESTS)
        members = await self._store.member_ids(group_id)
        for user_id in sorted(unwilling.difference(members, (one for one, _ in asked))):
            raise MemberNotAddable(
                "the account can only be invited", metadata={"user_id": ulid_text(user_id)}
            )

    async def _take_permit(self, caller: Caller) -> None:
        [wait] = await self._buckets.take([f"group-join:{{{caller.user_id.hex()}}}"], _JOINING)
        if wait:
            raise RateLimited("too many tries to join", retry_after=wait)


def _users_of(change: Change) -> tuple[bytes, ...]:
    """Whom the change is about, beside the caller."""
    if isinstance(change, Add):
        return tuple(dict.fromkeys(change.user_ids))
    if isinstance(change, Remove | Unban | SetRole | Transfer):
        return (change.user_id,)
    return ()
