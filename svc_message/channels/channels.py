"""What ChannelService does: checks the caller, asks the rows, tells the gateways."""

import hashlib
import hmac
from datetime import datetime, timedelta

from mesh.caller import Caller
from mesh.errors import PermissionDenied
from mesh.ids import ID_BYTES, ulid_text
from mesh.telemetry import OFF, Telemetry
from svc_message.channels.counting import SubscriberCounts
from svc_message.channels.model import (
    Change,
    Channel,
    ChannelLinkInvalid,
    ChannelUnknown,
    CursorAboveHead,
    Page,
    Post,
    Role,
    RotateKey,
    SetAdmin,
    SetAttributes,
    SetRetention,
    Subscription,
)
from svc_message.channels.store import ChannelStore
from svc_message.channels.telling import ChannelNews
from svc_message.channels.timeline import Timelines
from svc_message.groups.model import MemberUnknown
from svc_message.groups.store import GroupStore
from svc_message.identity.buckets import Buckets, Limit, RateLimited

_CREATING = Limit(permits=10, every=timedelta(hours=1))
_SUBSCRIBING = Limit(permits=20, every=timedelta(minutes=1))
_POSTING = Limit(permits=60, every=timedelta(seconds=1))


class ChannelRules:
    """Makes, changes, posts to and reads channels.

    Every call raises Unavailable, DeviceRevoked when the caller's credential holds no more, and
    ChannelUnknown or PermissionDenied where the caller is too little to the channel.
    """

    def __init__(
        self,
        store: ChannelStore,
        accounts: GroupStore,
        buckets: Buckets,
        timelines: Timelines,
        *,
        counts: SubscriberCounts,
        news: ChannelNews,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._telemetry = telemetry
        self._store = store
        self._accounts = accounts
        self._buckets = buckets
        self._timelines = timelines
        self._counts = counts
        self._news = news

    async def create(
        self,
        caller: Caller,
        creation_id: bytes,
        attributes: bytes,
        retention: timedelta,
        *,
        link_hash: bytes,
        sealed_key: bytes,
    ) -> Channel:
        """Make the channel of this creation id, once. Raises TooManyChannels, RateLimited."""
        await self._store.check_caller(caller)
        await self._take_permit(f"channel-create:{{{caller.user_id.hex()}}}", _CREATING)
        named = b"channel" + caller.user_id + creation_id
        channel_id = hashlib.sha256(named).digest()[:ID_BYTES]
        await self._store.create(channel_id, caller.user_id, attributes, retention, link_hash)
        channel = await self._store.read(channel_id, caller.user_id)
        await self._subscribe(caller, channel, sealed_key)
        return channel

    async def change(self, caller: Caller, channel_id: bytes, change: Change) -> Channel:
        """Make one change. Raises ChannelKeyStale, MemberUnknown, TooManyAdmins."""
        await self._store.check_caller(caller)
        if isinstance(change, SetAdmin) and change.is_admin:
            for user_id in await self._accounts.missing_accounts([change.user_id]):
                raise MemberUnknown("no such account", metadata={"user_id": ulid_text(user_id)})
        try:
            await self._change(caller.user_id, channel_id, change)
        except PermissionDenied:
            await self._demand_subscription(caller, channel_id)
            raise
        channel = await self._store.read(channel_id, caller.user_id)
        if isinstance(change, RotateKey):
            await self._subscribe(caller, channel, change.sealed_key)
        return channel

    async def get(self, caller: Caller, channel_id: bytes) -> tuple[Channel, list[bytes]]:
        """The channel and, for those who post, who else does beside the owner."""
        await self._store.check_caller(caller)
        channel = await self._store.read(channel_id, caller.user_id)
        if channel.role is Role.SUBSCRIBER:
            await self._demand_subscription(caller, channel_id)
            return channel, []
        return channel, await self._store.admin_ids(channel_id)

    async def delete(self, caller: Caller, channel_id: bytes) -> None:
        """End the channel."""
        await self._store.check_caller(caller)
        try:
            await self._store.delete(caller.user_id, channel_id)
        except PermissionDenied:
            await self._demand_subscription(caller, channel_id)
            raise

    async def subscribe(
        self, caller: Caller, channel_id: bytes, link_key: bytes, sealed_key: bytes
    ) -> Channel:
        """Subscribe by the link's key. Raises ChannelLinkInvalid, TooManyChannels, RateLimited."""
        await self._store.check_caller(caller)
        await self._take_permit(f"channel-subscribe:{{{caller.user_id.hex()}}}", _SUBSCRIBING)
        invalid = ChannelLinkInvalid("the key is not the channel's, or there is no such channel")
        try:
            channel = await self._store.read(channel_id, caller.user_id)
        except ChannelUnknown:
            raise invalid from None
        if not hmac.compare_digest(hashlib.sha256(link_key).digest(), channel.link_hash):
            raise invalid
        await self._subscribe(caller, channel, sealed_key)
        return channel

    async def unsubscribe(self, caller: Caller, channel_id: bytes) -> None:
        """End the subscription."""
        await self._store.check_caller(caller)
        if await self._store.unsubscribe(caller.user_id, channel_id):
            self._counts.note(channel_id, -1)
            self._news.subscription(caller.user_id, channel_id, is_there=False)

    async def subscriptions(self, caller: Caller) -> list[Subscription]:
        """All of the caller's account."""
        return await self._store.subscriptions(caller)

    async def post(
        self, caller: Caller, channel_id: bytes, post_id: bytes, key_version: int, body: bytes
    ) -> tuple[int, datetime]:
        """Post, once under a name. Raises ChannelKeyStale, PostConflict, RateLimited."""
        await self._store.check_caller(caller)
        await self._take_permit(f"channel-post:{{{channel_id.hex()}}}", _POSTING)
        span = self._telemetry.start_in_call("post")
        try:
            seq, at = await self._store.post(caller.user_id, channel_id, post_id, key_version, body)
        except PermissionDenied:
            await self._demand_subscription(caller, channel_id)
            raise
        finally:
            if span is not None:
                span.set("message.id", ulid_text(post_id))
                span.end()
        trace = b"" if span is None else span.trace
        self._news.post(Post(channel_id, seq, post_id, key_version, at, body, trace))
        return seq, at

    async def posts(self, caller: Caller, channel_id: bytes, after_seq: int, limit: int) -> Page:
        """Posts above a seq, for subscribers."""
        await self._demand_subscription(caller, channel_id)
        return await self._timelines.page(channel_id, after_seq, limit)

    async def set_cursor(self, caller: Caller, channel_id: bytes, cursor: int) -> int:
        """Move the caller's cursor on, never back; where it stands. Raises CursorAboveHead."""
        await self._demand_subscription(caller, channel_id)
        standing = await self._store.standing(channel_id)
        if cursor > standing.head_seq:
            raise CursorAboveHead(
                "the cursor is above the newest post",
                metadata={"allowed": f"at most {standing.head_seq}"},
            )
        return await self._store.move_cursor(caller.user_id, channel_id, cursor)

    async def _change(self, user_id: bytes, channel_id: bytes, change: Change) -> None:
        match change:
            case SetAttributes(attributes, key_version):
                await self._store.change(
                    user_id, channel_id, attributes=attributes, key_version=key_version
                )
            case SetRetention(retention):
                await self._store.change(user_id, channel_id, retention=retention)
            case RotateKey(link_hash, attributes):
                await self._store.change(
                    user_id, channel_id, attributes=attributes, link_hash=link_hash
                )
            case SetAdmin(admin_id, is_admin):
                await self._store.set_admin(user_id, channel_id, admin_id, is_admin=is_admin)

    async def _subscribe(self, caller: Caller, channel: Channel, sealed_key: bytes) -> None:
        channel_id = channel.channel_id
        if await self._store.subscribe(caller.user_id, channel_id, channel.head_seq, sealed_key):
            self._counts.note(channel_id, 1)
            self._news.subscription(caller.user_id, channel_id, is_there=True)

    async def _demand_subscription(self, caller: Caller, channel_id: bytes) -> None:
        if await self._store.cursor(caller, channel_id) is None:
            raise ChannelUnknown("no such channel, or the caller does not subscribe to it")

    async def _take_permit(self, name: str, limit: Limit) -> None:
        [wait] = await self._buckets.take([name], limit)
        if wait:
            raise RateLimited("too often", retry_after=wait)
