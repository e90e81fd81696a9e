"""The rows of channels and subscriptions: each call goes to its slot's shard, wherever it is."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from mesh.caller import Caller
from mesh.errors import PermissionDenied
from mesh.ids import slot_of
from mesh.postgres import STORE_ERRORS
from svc_message.channels.model import (
    MOST_ADMINS,
    MOST_POSTS,
    MOST_SUBSCRIPTIONS,
    PAGE_BYTES,
    Channel,
    ChannelKeyStale,
    ChannelUnknown,
    Post,
    PostConflict,
    Role,
    Standing,
    Subscription,
    TooManyAdmins,
    TooManyChannels,
)
from svc_message.identity.slot_store import SlotStore, by, demand_linked
from svc_message.model import Outcome

log = structlog.get_logger(__name__)

_CREATE = "SELECT create_channel($1, $2, $3, $4, $5, $6) AS outcome"
_READ = "SELECT * FROM read_channel($1, $2, $3)"
_STANDING = "SELECT * FROM channel_standing($1, $2)"
_POSTS = "SELECT * FROM read_posts($1, $2, $3, $4, $5)"
_POST = "SELECT * FROM create_post($1, $2, $3, $4, $5, $6, $7)"
_CHANGE = "SELECT * FROM change_channel($1, $2, $3, $4, $5, $6, $7)"
_SET_ADMIN = "SELECT set_channel_admin($1, $2, $3, $4, $5, $6) AS outcome"
_DELETE = "SELECT delete_channel($1, $2, $3) AS outcome"
_COUNT = "SELECT count_subscribers($1, $2, $3) AS outcome"
_SUBSCRIBE = "SELECT * FROM subscribe($1, $2, $3, $4, $5, $6)"
_UNSUBSCRIBE = "SELECT * FROM unsubscribe($1, $2, $3)"
_LIST = "SELECT * FROM list_subscriptions($1, $2, $3, $4)"
_CURSOR = "SELECT * FROM read_cursor($1, $2, $3, $4, $5)"
_MOVE_CURSOR = "SELECT * FROM move_cursor($1, $2, $3, $4)"
# Nothing is decided by these.
_ADMINS = "SELECT user_id FROM channel_admin WHERE channel_id = $1 ORDER BY user_id"
_FOLLOWED = "SELECT user_id, channel_id FROM subscription WHERE user_id = ANY ($1)"
_HEADS = """
SELECT channel_id, head_seq FROM channel WHERE channel_id = ANY ($1) AND NOT is_deleted
"""
_FORGET = "SELECT forget_posts($1) AS forgotten"

# As sql/0017_channel_functions.sql has them.
_UNKNOWN, _ROLE_TOO_LOW, _STALE, _CONFLICT, _AS_MANY, _NO_SUBSCRIPTION = 80, 81, 83, 84, 85, 86


class ChannelStore(SlotStore):
    """Channels on the shards. Each call may be repeated.

    Each raises ShardUnavailable or SlotMoving when it cannot be done now; what is asked of a
    channel raises ChannelUnknown if there is none, and PermissionDenied if the role is too low.
    """

    async def create(
        self,
        channel_id: bytes,
        owner_id: bytes,
        attributes: bytes,
        retention: timedelta,
        link_hash: bytes,
    ) -> None:
        """Make the channel, unless it is there."""
        slot = slot_of(channel_id)
        await self._ask(slot, _CREATE, channel_id, owner_id, attributes, retention, link_hash)

    async def read(self, channel_id: bytes, caller_id: bytes) -> Channel:
        """The channel, and what the caller is to it; whether they subscribe is not asked."""
        row = await self._ask(slot_of(channel_id), _READ, channel_id, caller_id)
        _demand_done(row["outcome"])
        return Channel(
            channel_id,
            Role(row["role"]),
            row["attributes"],
            row["key_version"],
            row["link_hash"],
            row["retention"],
            row["head_seq"],
            row["oldest_seq"],
            row["subscribers"],
        )

    async def admin_ids(self, channel_id: bytes) -> list[bytes]:
        """Who may post beside the owner."""
        shard = self._shards.shard_of(slot_of(channel_id))
        rows = await self._whole_shard(shard, _ADMINS, channel_id)
        return [row["user_id"] for row in rows]

    async def standing(self, channel_id: bytes) -> Standing:
        """Which posts can be read."""
        row = await self._ask(slot_of(channel_id), _STANDING, channel_id)
        _demand_done(row["outcome"])
        return Standing(row["head_seq"], row["oldest_seq"])

    async def posts(self, channel_id: bytes, first: int, last: int) -> list[Post]:
        """Posts from one seq to another, as many as a page holds."""
        rows = await self._rows(slot_of(channel_id), _POSTS, channel_id, first, last, PAGE_BYTES)
        return [
            Post(
                channel_id,
                row["seq"],
                row["post_id"],
                row["key_version"],
                row["posted_at"],
                row["ciphertext"],
            )
            for row in rows
        ]

    async def post(
        self, caller_id: bytes, channel_id: bytes, post_id: bytes, key_version: int, body: bytes
    ) -> tuple[int, datetime]:
        """Post; the seq and the time. Raises ChannelKeyStale, PostConflict."""
        row = await self._ask(
            slot_of(channel_id),
            _POST,
            *(channel_id, caller_id, post_id, key_version, body, MOST_POSTS),
        )
        _demand_done(row["outcome"], row["key_version"])
        return row["seq"], row["posted_at"]

    async def change(
        self,
        caller_id: bytes,
        channel_id: bytes,
        *,
        attributes: bytes | None = None,
        key_version: int | None = None,
        retention: timedelta | None = None,
        link_hash: bytes | None = None,
    ) -> None:
        """Change what is given. Raises ChannelKeyStale."""
        row = await self._ask(
            slot_of(channel_id),
            _CHANGE,
            *(channel_id, caller_id, attributes, key_version, retention, link_hash),
        )
        _demand_done(row["outcome"], row["key_version"])

    async def set_admin(
        self, caller_id: bytes, channel_id: bytes, user_id: bytes, *, is_admin: bool
    ) -> None:
        """Let an account post, or not any more. Raises TooManyAdmins."""
        row = await self._ask(
            slot_of(channel_id), _SET_ADMIN, channel_id, caller_id, user_id, is_admin, MOST_ADMINS
        )
        if row["outcome"] == _AS_MANY:
            raise TooManyAdmins(
                "the channel has as many admins as it may", metadata={"allowed": str(MOST_ADMINS)}
            )
        _demand_done(row["outcome"])

    async def delete(self, caller_id: bytes, channel_id: bytes) -> None:
        """End the channel."""
        row = await self._ask(slot_of(channel_id), _DELETE, channel_id, caller_id)
        _demand_done(row["outcome"])

    async def count(self, channel_id: bytes, change: int) -> None:
        """Count subscribers; this one is not harmless to repeat, but only about right anyway."""
        await self._ask(slot_of(channel_id), _COUNT, channel_id, change)

    async def subscribe(
        self, user_id: bytes, channel_id: bytes, cursor: int, sealed_key: bytes
    ) -> bool:
        """Subscribe; False if the account did before. Raises TooManyChannels."""
        row = await self._ask(
            slot_of(user_id),
            _SUBSCRIBE,
            *(user_id, channel_id, cursor, sealed_key, MOST_SUBSCRIPTIONS),
        )
        if row["outcome"] == _AS_MANY:
            raise TooManyChannels(
                "the account subscribes to as many channels as it may",
                metadata={"allowed": str(MOST_SUBSCRIPTIONS)},
            )
        return bool(row["is_new"])

    async def unsubscribe(self, user_id: bytes, channel_id: bytes) -> bool:
        """End the subscription; False if there was none."""
        row = await self._ask(slot_of(user_id), _UNSUBSCRIBE, user_id, channel_id)
        return bool(row["was_there"])

    async def subscriptions(self, caller: Caller) -> list[Subscription]:
        """All of the caller's account. Raises DeviceRevoked."""
        rows = await self._rows(slot_of(caller.user_id), _LIST, *by(caller))
        if rows:
            demand_linked(rows[0]["outcome"])
        return [Subscription(row["channel_id"], row["cursor"], row["sealed_key"]) for row in rows]

    async def cursor(self, caller: Caller, channel_id: bytes) -> int | None:
        """How far the caller has read; None: they do not subscribe. Raises DeviceRevoked."""
        row = await self._ask(slot_of(caller.user_id), _CURSOR, *by(caller), channel_id)
        demand_linked(row["outcome"])
        cursor: int | None = row["cursor"]
        return cursor

    async def move_cursor(self, user_id: bytes, channel_id: bytes, cursor: int) -> int:
        """Move the cursor on; where it stands. Raises ChannelUnknown without a subscription."""
        row = await self._ask(slot_of(user_id), _MOVE_CURSOR, user_id, channel_id, cursor)
        _demand_done(row["outcome"])
        moved: int = row["cursor"]
        return moved

    # What gateways ask; a shard that cannot be read is left out.

    async def followed_by(self, user_ids: Sequence[bytes]) -> Mapping[bytes, list[bytes]]:
        """The channels of these accounts, for each whose shard could be read."""
        found: dict[bytes, list[bytes]] = {}
        for asked, rows in await self._on_each(_FOLLOWED, user_ids):
            found |= {user_id: [] for user_id in asked}
            for row in rows:
                found[row["user_id"]].append(row["channel_id"])
        return found

    async def heads(self, channel_ids: Sequence[bytes]) -> Mapping[bytes, int]:
        """The newest seq of each of these channels that is there and could be read."""
        answers = await self._on_each(_HEADS, channel_ids)
        return {row["channel_id"]: row["head_seq"] for _, rows in answers for row in rows}

    async def forget_posts(self, shard: str, limit: int) -> int:
        """Forget posts whose time is over, at most so many; how many. Raises STORE_ERRORS."""
        [row] = await self._on_shard(shard, _FORGET, limit)
        forgotten: int = row["forgotten"]
        return forgotten

    async def _on_each(
        self, statement: str, keys: Sequence[bytes]
    ) -> list[tuple[Sequence[bytes], Sequence[Any]]]:
        by_shard: defaultdict[str, list[bytes]] = defaultdict(list)
        for key in keys:
            by_shard[self._shards.shard_of(slot_of(key))].append(key)
        answers = await asyncio.gather(
            *(self._if_there(shard, statement, asked) for shard, asked in by_shard.items())
        )
        return [answer for answer in answers if answer is not None]

    async def _if_there(
        self, shard: str, statement: str, keys: Sequence[bytes]
    ) -> tuple[Sequence[bytes], Sequence[Any]] | None:
        try:
            return keys, await self._on_shard(shard, statement, keys)
        except STORE_ERRORS as error:
            log.info("a shard is left out", shard=shard, error=type(error).__name__)
            return None


def _demand_done(outcome: int, key_version: int | None = None) -> None:
    if outcome in {_UNKNOWN, _NO_SUBSCRIPTION}:
        raise ChannelUnknown("no such channel, or the caller does not subscribe to it")
    if outcome == _ROLE_TOO_LOW:
        raise PermissionDenied("the caller's role is too low")
    if outcome == _STALE:
        raise ChannelKeyStale(
            "the channel has another key", metadata={"key_version": str(key_version)}
        )
    if outcome == _CONFLICT:
        raise PostConflict("the post_id was given to another body before")
    assert outcome == Outcome.DONE, outcome  # noqa: S101  every other one is answered above
