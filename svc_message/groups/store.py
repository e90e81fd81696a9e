"""The rows of groups: each call goes to the group's shard, wherever it is."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mesh.ids import slot_of
from svc_message.groups.model import (
    Changes,
    Group,
    GroupUnknown,
    Link,
    LoggedChange,
    Member,
    MessageUnknown,
    Permissions,
    Profile,
    Revision,
    Role,
)
from svc_message.identity.slot_store import SlotStore
from svc_message.model import Outcome

_READ = "SELECT * FROM read_group($1, $2, $3)"
_COMMIT = """
SELECT commit_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
    $19, $20, $21, $22) AS outcome
"""
_MEMBERS = "SELECT * FROM list_members($1, $2, $3)"
_MEMBER_IDS = "SELECT user_id FROM member WHERE group_id = $1 AND left_seq IS NULL"
_CHANGES = "SELECT * FROM list_changes($1, $2, $3, $4, $5, $6)"
_GROUPS = "SELECT * FROM groups_of($1)"
_REQUEST = "SELECT request_join($1, $2, $3) AS outcome"
_DECLINE = "SELECT decline_join($1, $2, $3) AS outcome"
_REQUESTS = "SELECT * FROM join_requests($1, $2, $3)"
_RECEIPTS = "SELECT * FROM message_receipts($1, $2, $3, $4)"
_EXIST = "SELECT * FROM accounts_exist($1, $2, $3)"

# As sql/0013_group_receipts.sql has it.
_NO_SUCH_MESSAGE = 75


class GroupStore(SlotStore):
    """Groups on the shards. Each call may be repeated.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now.
    """

    async def read(self, group_id: bytes, users: Sequence[bytes]) -> Group:
        """The group, with what these people are in it. Raises GroupUnknown."""
        row = await self._ask(slot_of(group_id), _READ, group_id, users)
        _demand_known(row["outcome"])
        return Group(
            group_id,
            row["revision"],
            row["device_epoch"],
            row["member_count"],
            _profile(row, _link(row)),
            {
                user_id: Role(role)
                for user_id, role in zip(users, row["roles"], strict=True)
                if role is not None
            },
            frozenset(user for user, is_so in zip(users, row["banned"], strict=True) if is_so),
            row["now"],
        )

    async def commit(
        self, group_id: bytes, number: int, actor_id: bytes, revision: Revision, logged: bytes
    ) -> bool:
        """Make the revision; False if it was decided on an older one than the group's."""
        profile, permissions = revision.profile, revision.profile.permissions
        link = profile.link
        row = await self._ask(
            slot_of(group_id),
            _COMMIT,
            *(group_id, number, actor_id, logged),
            *(permissions.send, permissions.add, permissions.edit),
            *(profile.attributes, profile.disappear_after),
            *_link_columns(link),
            list(revision.leaving),
            list(revision.joining),
            list(revision.joining.values()),
            list(revision.changing),
            list(revision.changing.values()),
            list(revision.banning),
            list(revision.unbanning),
        )
        return bool(row["outcome"] == Outcome.DONE)

    async def members(self, group_id: bytes, caller_id: bytes) -> list[Member]:
        """All members, by account. Raises GroupUnknown unless the caller is one."""
        rows = await self._rows(slot_of(group_id), _MEMBERS, group_id, caller_id)
        _demand_known(rows[0]["outcome"])
        return [Member(row["user_id"], Role(row["role"]), row["joined_revision"]) for row in rows]

    async def member_ids(self, group_id: bytes) -> list[bytes]:
        """Who is a member, for a hint: nothing is decided by it. Raises ShardUnavailable."""
        shard = self._shards.shard_of(slot_of(group_id))
        return [row["user_id"] for row in await self._whole_shard(shard, _MEMBER_IDS, group_id)]

    async def changes(
        self, group_id: bytes, caller_id: bytes, revision: int, device_epoch: int, *, limit: int
    ) -> Changes:
        """What has changed since. Raises GroupUnknown unless the caller is a member."""
        rows = await self._rows(
            slot_of(group_id), _CHANGES, group_id, caller_id, revision, device_epoch, limit
        )
        _demand_known(rows[0]["outcome"])
        return changes_of(rows)

    async def groups_of(self, user_id: bytes) -> list[Group]:
        """The groups of which somebody is a member. Raises ShardUnavailable if one is away."""
        found = []
        for shard in self.shards:
            found += [
                Group(
                    row["group_id"],
                    row["revision"],
                    row["device_epoch"],
                    row["member_count"],
                    _profile(row, None),
                )
                for row in await self._whole_shard(shard, _GROUPS, user_id)
            ]
        return found

    async def request_join(self, group_id: bytes, user_id: bytes) -> None:
        """Note that somebody asks to join."""
        await self._ask(slot_of(group_id), _REQUEST, group_id, user_id)

    async def decline_join(self, group_id: bytes, user_id: bytes) -> None:
        """Forget it."""
        await self._ask(slot_of(group_id), _DECLINE, group_id, user_id)

    async def join_requests(self, group_id: bytes, *, limit: int) -> list[tuple[bytes, datetime]]:
        """Who asks to join and since when, the oldest first."""
        rows = await self._rows(slot_of(group_id), _REQUESTS, group_id, limit)
        return [(row["user_id"], row["requested_at"]) for row in rows]

    async def message_receipts(
        self, group_id: bytes, caller_id: bytes, seq: int
    ) -> list[tuple[bytes, bool]]:
        """Who has received a message of the caller's, and whether they have read it.

        Raises GroupUnknown, MessageUnknown.
        """
        first, *rows = await self._rows(slot_of(group_id), _RECEIPTS, group_id, caller_id, seq)
        _demand_known(first["outcome"])
        if first["outcome"] == _NO_SUCH_MESSAGE:
            raise MessageUnknown("the caller has no such message in the group")
        return [(row["user_id"], row["is_read"]) for row in rows]

    async def missing_accounts(self, user_ids: Sequence[bytes]) -> list[bytes]:
        """Those of these accounts that do not exist."""
        slots = [slot_of(user_id) for user_id in user_ids]
        rows = await self._ask_each(_EXIST, slots, user_ids)
        return [
            user_id
            for user_id, row in zip(user_ids, rows, strict=True)
            if row["outcome"] != Outcome.DONE
        ]


def changes_of(rows: Sequence[Any]) -> Changes:
    """What list_changes answered: where the group stands, then the changes."""
    now, *since = rows
    return Changes(
        now["revision"],
        now["device_epoch"],
        [
            LoggedChange(row["revision"], row["user_id"], row["changed_at"], row["change"])
            for row in since
            if row["change"] is not None
        ],
        [(row["device_epoch"], row["user_id"]) for row in since if row["change"] is None],
    )


def _demand_known(outcome: int) -> None:
    if outcome == Outcome.GROUP_UNKNOWN:
        raise GroupUnknown("no such group, or the caller is no member of it")


def _profile(row: Any, link: Link | None) -> Profile:
    permissions = Permissions(Role(row["send_role"]), Role(row["add_role"]), Role(row["edit_role"]))
    return Profile(row["attributes"], permissions, row["disappear_after"], link)


def _link(row: Any) -> Link | None:
    if row["link_hash"] is None:
        return None
    return Link(
        row["link_hash"],
        row["link_has_password"],
        row["link_expires_at"],
        row["link_uses_left"],
        row["link_needs_approval"],
    )


def _link_columns(link: Link | None) -> tuple[Any, ...]:
    if link is None:
        return None, False, None, 0, False
    return (
        link.key_hash,
        link.has_password,
        link.expires_at,
        link.uses_left,
        link.needs_approval,
    )
