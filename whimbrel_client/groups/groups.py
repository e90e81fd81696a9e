"""Groups, as an application uses them: `client.groups`."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from whimbrel.content.v1.group_pb2 import GroupAttributes
from whimbrel.group.v1 import change_pb2, group_pb2
from whimbrel_client.errors import ClientClosed
from whimbrel_client.groups import attributes
from whimbrel_client.groups.calls import GroupCalls
from whimbrel_client.groups.invites import Invite
from whimbrel_client.groups.model import (
    Group,
    GroupChange,
    GroupKeyUnknown,
    JoinRequest,
    MemberReceipt,
    Permissions,
    Role,
    Tally,
)
from whimbrel_client.groups.store import GroupStore
from whimbrel_client.groups.upkeep import GroupUpkeep
from whimbrel_client.life import Life
from whimbrel_client.model import OutgoingMessage
from whimbrel_client.sync import Sending

Who = bytes | str
Change = change_pb2.Change

_MOST_ADDED = 256


class Groups:
    """What a person does with groups; `client.send` takes a group's id as it takes a person's.

    Everything that changes a group, or asks the mesh, raises CallFailed (CALLER_NOT_ALLOWED,
    MEMBER_UNKNOWN, MEMBER_NOT_ADDABLE, MEMBER_BANNED, GROUP_FULL and others) and Unreachable;
    people are named by user id or handle, and a new handle raises what `user_named` does.
    """

    def __init__(
        self,
        store: GroupStore,
        calls: GroupCalls,
        upkeep: GroupUpkeep,
        *,
        life: Life,
        is_caught_up: Callable[[], bool],
        offer: Callable[[Iterable[Sending]], None],
        user_named: Callable[[str], Awaitable[bytes]],
    ) -> None:
        self._life = life
        self._is_caught_up = is_caught_up
        # Rung when keys were handed out, and when something has changed here or has come.
        self.moved = life.bell()
        self._store = store
        self._calls = calls
        self._upkeep = upkeep
        self._offer = offer
        self._user_named = user_named

    # What is known here.

    async def all(self) -> list[Group]:
        """The groups that this device knows, also those that were left."""
        return await self._store.groups()

    async def get(self, group_id: bytes) -> Group:
        """One of them. Raises GroupUnknown."""
        return await self._store.group(group_id)

    async def follow(self) -> AsyncGenerator[list[Group], None]:
        """All groups that are known here, then again whenever something of them has changed."""
        known: list[Group] | None = None
        while True:
            moved = self.moved.next_ring()
            self._life.raise_if_failed()
            try:
                found = await self.all()
            except ClientClosed:
                return
            if found != known:
                yield found
            known = found
            await moved.wait()

    async def tally(self, message: OutgoingMessage) -> Tally | None:
        """How many have an own message; None before it went out, or if it is to no group."""
        return await self._store.tally(message.local_id)

    async def caught_up(self) -> None:
        """Wait until all that has changed in groups, and waited for this device, is here.

        Raises CallFailed, Unreachable and what ended the client.
        """
        await self._upkeep.refresh()
        while True:
            moved = self.moved.next_ring()
            self._life.raise_if_ended()
            if self._is_caught_up():
                return
            await moved.wait()

    async def handed_out(self, group_id: bytes) -> None:
        """Wait until what this device writes with, and the name, is on its way to all members.

        Raises what ended the client.
        """
        while True:
            moved = self.moved.next_ring()
            self._life.raise_if_ended()
            # Somebody's devices may have changed since it was queued.
            self._offer(await self._store.hand_out(group_id))
            if not await self._store.is_being_handed(group_id):
                return
            await moved.wait()

    # Making and changing.

    async def create(
        self,
        name: str,
        members: Iterable[Who] = (),
        *,
        description: str = "",
        permissions: Permissions | None = None,
        disappear_after: timedelta = timedelta(0),
    ) -> Group:
        """Make a group of this account, its owner, and at most 256 others."""
        key = attributes.new_key()
        request = group_pb2.CreateGroupRequest(
            creation_id=os.urandom(16),
            attributes=attributes.seal(GroupAttributes(name=name, description=description), key),
            user_ids=[await self._account(one) for one in members],
            permissions=(permissions or Permissions()).on_wire(),
            disappear_after=_duration(disappear_after),
        )
        group_id = (await self._calls.create(request)).group_id
        await self._store.set_key(group_id, key)
        return await self._caught_up(group_id)

    async def rename(self, group_id: bytes, name: str, *, description: str | None = None) -> Group:
        """Give it another name, which only members can read; the description stays if not given.

        Raises GroupKeyUnknown while nobody has handed over the key of the name there is.
        """
        key, sealed = await self._store.key(group_id)
        said = attributes.unseal(sealed, key)
        if said is None:
            raise GroupKeyUnknown("nobody has handed over the key of this group's name yet")
        said.name = name
        said.description = said.description if description is None else description
        return await self._change(group_id, Change(attributes=attributes.seal(said, key)))

    async def set_permissions(self, group_id: bytes, permissions: Permissions) -> Group:
        """Say what each role may do; `send=Role.ADMIN` makes the group announcement-only."""
        return await self._change(group_id, Change(permissions=permissions.on_wire()))

    async def set_timer(self, group_id: bytes, disappear_after: timedelta) -> Group:
        """Let messages disappear so long after they were read; zero: never."""
        return await self._change(group_id, Change(disappear_after=_duration(disappear_after)))

    # Members.

    async def add(self, group_id: bytes, members: Iterable[Who]) -> Group:
        """Add people, or let them in who have asked; they read what is written from then on."""
        user_ids = [await self._account(one) for one in members]
        for start in range(0, len(user_ids), _MOST_ADDED):
            some = change_pb2.AddMembers(user_ids=user_ids[start : start + _MOST_ADDED])
            await self._calls.change(group_id, Change(add=some))
        return await self._caught_up(group_id)

    async def remove(self, group_id: bytes, member: Who, *, ban: bool = False) -> Group:
        """Remove a member; `ban`: and let them come back in no way."""
        removed = change_pb2.RemoveMember(user_id=await self._account(member), ban=ban)
        return await self._change(group_id, Change(remove=removed))

    async def unban(self, group_id: bytes, who: Who) -> Group:
        """Let a banned person be added, or come by the link."""
        unbanned = change_pb2.Unban(user_id=await self._account(who))
        return await self._change(group_id, Change(unban=unbanned))

    async def set_role(self, group_id: bytes, member: Who, role: Role) -> Group:
        """Give a member another role below one's own."""
        given = change_pb2.SetRole(user_id=await self._account(member), role=_on_wire(role))
        return await self._change(group_id, Change(set_role=given))

    async def transfer(self, group_id: bytes, member: Who) -> Group:
        """Make another member the owner, and oneself an admin."""
        owner = change_pb2.TransferOwnership(user_id=await self._account(member))
        return await self._change(group_id, Change(transfer_ownership=owner))

    async def leave(self, group_id: bytes) -> Group:
        """Be a member no more; what was said stays here."""
        return await self._change(group_id, Change(leave=change_pb2.Leave()))

    # The way in.

    async def make_link(
        self,
        group_id: bytes,
        *,
        password: str = "",
        lasts: timedelta | None = None,
        uses: int = 0,
        needs_approval: bool = False,
    ) -> str:
        """Replace the invite link; whoever has it, and the password if there is one, can join.

        `lasts`: until it ends; None: never. `uses`: how many may come; 0: no bound.
        `needs_approval`: they ask only, and an admin adds them. Raises GroupKeyUnknown.
        """
        key, _ = await self._store.key(group_id)
        if not key:
            raise GroupKeyUnknown("nobody has handed over the key of this group's name yet")
        invite = Invite(group_id, key)
        link = change_pb2.InviteLink(
            key_hash=await asyncio.to_thread(invite.key_hash, password),
            has_password=bool(password),
            uses_left=uses,
            needs_approval=needs_approval,
        )
        if lasts is not None:
            link.expires_at.FromDatetime(datetime.now(UTC) + lasts)
        await self._change(group_id, Change(set_link=link))
        return str(invite)

    async def revoke_link(self, group_id: bytes) -> Group:
        """Nobody comes by the link any more."""
        return await self._change(group_id, Change(remove_link=change_pb2.RemoveLink()))

    async def join(self, link: str, *, password: str = "") -> Group | None:
        """Join by a link; None: an admin has to approve.

        Raises InviteInvalid, and CallFailed (GROUP_LINK_INVALID, MEMBER_BANNED, GROUP_FULL).
        """
        invite = Invite.read(link)
        key = await asyncio.to_thread(invite.join_key, password)
        if not await self._calls.join(invite.group_id, key):
            return None
        await self._store.set_key(invite.group_id, invite.group_key)
        return await self._caught_up(invite.group_id)

    async def join_requests(self, group_id: bytes) -> list[JoinRequest]:
        """Who waits to be let in, the oldest first; `add` lets them in."""
        return [
            JoinRequest(one.user_id, one.requested_at.ToDatetime(UTC))
            for one in await self._calls.join_requests(group_id)
        ]

    async def decline(self, group_id: bytes, who: Who) -> None:
        """Do not let somebody in."""
        await self._calls.decline(group_id, await self._account(who))

    # What the mesh tells.

    async def who_has(self, message: OutgoingMessage) -> list[MemberReceipt]:
        """Which members have received and read an own message; raises CallFailed for an old one."""
        seq = message.outcome.seq if message.outcome else None
        if seq is None:
            return []
        return [
            MemberReceipt(one.user_id, one.read)
            for one in await self._calls.receipts(message.conversation, seq)
        ]

    async def changes(self, group_id: bytes, *, after: int = 0) -> list[GroupChange]:
        """What has changed above a revision, at most 100, as far as the account may know it."""
        page = await self._calls.changes(group_id, after, 0)
        return [_change_of(logged) for logged in page.changes]

    # Inside.

    async def _change(self, group_id: bytes, change: Change) -> Group:
        await self._calls.change(group_id, change)
        return await self._caught_up(group_id)

    async def _caught_up(self, group_id: bytes) -> Group:
        """The group after a change; who is new in it is told its name at once."""
        await self._upkeep.catch_up(group_id)
        self._offer(await self._store.hand_out(group_id))
        return await self._store.group(group_id)

    async def _account(self, who: Who) -> bytes:
        return await self._user_named(who) if isinstance(who, str) else who


def _duration(length: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def _on_wire(role: Role) -> change_pb2.Role.ValueType:
    return change_pb2.Role.ValueType(role)


def _change_of(logged: change_pb2.LoggedChange) -> GroupChange:
    kind = logged.change.WhichOneof("change") or ""
    change = getattr(logged.change, kind) if kind else None
    about = [*getattr(change, "user_ids", ()), *filter(None, [getattr(change, "user_id", b"")])]
    at = logged.changed_at.ToDatetime(UTC)
    return GroupChange(logged.revision, logged.actor_id, at, kind, about)
