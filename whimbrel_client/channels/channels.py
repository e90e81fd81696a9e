"""Channels, as an application uses them."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from operator import attrgetter

from whimbrel.channel.v1 import channel_pb2
from whimbrel.content.v1.channel_pb2 import ChannelAttributes
from whimbrel.content.v1.content_pb2 import Content
from whimbrel_client.channels.calls import ChannelCalls
from whimbrel_client.channels.errors import (
    ChannelKeyLacking,
    ChannelLinkInvalid,
    ChannelUnknown,
    PostTooLarge,
)
from whimbrel_client.channels.following import Following
from whimbrel_client.channels.keys import ChannelKey, channel_id_of
from whimbrel_client.channels.model import Channel, Post
from whimbrel_client.channels.store import ChannelStore
from whimbrel_client.crypto import KeyPair
from whimbrel_client.errors import CallFailed
from whimbrel_client.life import Life
from whimbrel_client.payload import MAX_CONTENT_BYTES, text

_PAGE = 256


class Channels:
    """The channels of this account: few post, any number of people read.

    What is done here is done when the call returns; nothing waits in a queue. All but the readings
    of the local store raise CallFailed and Unreachable.
    """

    def __init__(
        self,
        user_id: bytes,
        store: ChannelStore,
        calls: ChannelCalls,
        identity: Callable[[], Awaitable[KeyPair]],
        *,
        life: Life,
    ) -> None:
        """For `Client` only."""
        self._user_id = user_id
        self._store = store
        self._calls = calls
        self._identity = identity
        self._life = life
        self._changed = life.bell()
        self.following = Following(store, calls, identity, on_changed=self._changed.ring)

    # What is followed.

    async def followed(self) -> list[Channel]:
        """The channels that the account follows, as the mesh has them now."""
        await self.following.refresh(with_all=True)
        return await self._store.channels()

    async def known(self, channel_id: bytes) -> Channel:
        """A channel as it was last heard of. Raises ChannelUnknown."""
        for channel in await self._store.channels():
            if channel.channel_id == channel_id:
                return channel
        raise ChannelUnknown("this account does not follow the channel")

    async def subscribe(self, link: str) -> Channel:
        """Follow the channel of a link; its latest posts come by themselves.

        Following it again by a newer link brings the newer key. Raises ChannelLinkInvalid.
        """
        key = ChannelKey.of_link(link)
        request = channel_pb2.SubscribeRequest(
            channel_id=key.channel_id,
            link_key=key.link_key,
            sealed_key=key.seal_for(await self._identity()),
        )
        try:
            channel = await self._calls.subscribe(request)
        except CallFailed as error:
            if error.reason == "CHANNEL_LINK_INVALID":
                raise ChannelLinkInvalid(
                    "the link is not the channel's, or not any more"
                ) from error
            raise
        await self.following.keep(channel, key)
        await self.following.catch_up(key.channel_id)
        self._changed.ring()
        return await self.known(key.channel_id)

    async def unsubscribe(self, channel_id: bytes) -> None:
        """Follow a channel no more; what is stored of it is removed."""
        await self._calls.unsubscribe(channel_id)
        await self._store.remove(channel_id)
        self._changed.ring()

    async def link(self, channel_id: bytes) -> str:
        """What lets others follow the channel and read it. Raises ChannelKeyLacking."""
        return (await self._key(channel_id))[1].link

    # Reading.

    def posts(
        self, channel_id: bytes | None = None, *, after: int = 0
    ) -> AsyncGenerator[Post, None]:
        """All stored posts above a cursor, in local order, then each as it comes."""
        read = partial(self._store.posts, limit=_PAGE, channel_id=channel_id)
        return self._life.each(self._changed, read, after, attrgetter("cursor"))

    async def stored(self, channel_id: bytes) -> list[Post]:
        """The posts that are stored of a channel, after all that are lacking were read."""
        await self.following.catch_up(channel_id)
        found: list[Post] = []
        while page := await self._store.posts(
            found[-1].cursor if found else 0, limit=_PAGE, channel_id=channel_id
        ):
            found += page
        return found

    async def mark_read(self, channel_id: bytes, up_to_seq: int) -> None:
        """A person has read so far; the account's other devices learn it when they next connect."""
        cursor = await self._calls.set_cursor(channel_id, up_to_seq)
        await self._store.mark_read(channel_id, cursor)

    # Posting.

    async def post(
        self, channel_id: bytes, what: str | Content, *, post_id: bytes | None = None
    ) -> int:
        """Post words, or any content; the seq. Owners and admins may.

        If it fails and is repeated under the same `post_id`, 16 random bytes, with the same words,
        it is there once. Raises ChannelKeyLacking, PostTooLarge.
        """
        version, key = await self._key(channel_id)
        content = Content()
        content.CopyFrom(text(what) if isinstance(what, str) else what)
        content.id = post_id or os.urandom(16)
        said = content.SerializeToString()
        if len(said) > MAX_CONTENT_BYTES:
            raise PostTooLarge(f"a post has at most {MAX_CONTENT_BYTES} bytes")
        request = channel_pb2.CreatePostRequest(
            channel_id=channel_id,
            post_id=content.id,
            key_version=version,
            ciphertext=key.seal_post(said, version, content.id),
        )
        seq = (await self._calls.post(request)).seq
        await self.following.catch_up(channel_id)
        return seq

    # Owning.

    async def create(
        self, name: str, description: str = "", *, retention: timedelta | None = None
    ) -> Channel:
        """Make a channel, which the account follows. Posts are kept for 30 days, or as given."""
        creation_id = os.urandom(16)
        key = ChannelKey.new(channel_id_of(self._user_id, creation_id))
        request = channel_pb2.CreateChannelRequest(
            creation_id=creation_id,
            attributes=key.seal_attributes(_attributes(name, description)),
            link_key_hash=key.link_key_hash,
            sealed_key=key.seal_for(await self._identity()),
        )
        if retention is not None:
            request.retention.FromTimedelta(retention)
        await self.following.keep(await self._calls.create(request), key)
        self._changed.ring()
        return await self.known(key.channel_id)

    async def rename(self, channel_id: bytes, name: str, description: str = "") -> None:
        """Give other attributes. Admins may as well. Raises ChannelKeyLacking."""
        version, key = await self._key(channel_id)
        attributes = channel_pb2.Attributes(
            attributes=key.seal_attributes(_attributes(name, description)), key_version=version
        )
        change = channel_pb2.ChangeChannelRequest(channel_id=channel_id, attributes=attributes)
        await self.following.keep(await self._calls.change(change), key)

    async def set_retention(self, channel_id: bytes, retention: timedelta) -> None:
        """Keep posts for so long, an hour to 90 days."""
        change = channel_pb2.ChangeChannelRequest(channel_id=channel_id)
        change.retention.FromTimedelta(retention)
        await self._calls.change(change)

    async def add_admin(self, channel_id: bytes, user_id: bytes) -> None:
        """Let an account post; it needs the link as well."""
        await self._calls.change(
            channel_pb2.ChangeChannelRequest(channel_id=channel_id, add_admin=user_id)
        )

    async def remove_admin(self, channel_id: bytes, user_id: bytes) -> None:
        """Let an account post no more."""
        await self._calls.change(
            channel_pb2.ChangeChannelRequest(channel_id=channel_id, remove_admin=user_id)
        )

    async def rotate_key(self, channel_id: bytes) -> str:
        """Another key; the new link. Who does not get that reads no later post."""
        channel, key = await self.known(channel_id), ChannelKey.new(channel_id)
        rotation = channel_pb2.KeyRotation(
            link_key_hash=key.link_key_hash,
            attributes=key.seal_attributes(_attributes(channel.name, channel.description)),
            sealed_key=key.seal_for(await self._identity()),
        )
        change = channel_pb2.ChangeChannelRequest(channel_id=channel_id, rotate_key=rotation)
        await self.following.keep(await self._calls.change(change), key)
        return key.link

    async def delete(self, channel_id: bytes) -> None:
        """End the channel, for everybody."""
        await self._calls.delete(channel_id)
        await self.unsubscribe(channel_id)

    async def _key(self, channel_id: bytes) -> tuple[int, ChannelKey]:
        known = await self._store.newest_key(channel_id)
        if known is None:
            await self.known(channel_id)
            raise ChannelKeyLacking("the channel has another key since: follow its new link")
        return known


def _attributes(name: str, description: str) -> bytes:
    return ChannelAttributes(name=name, description=description).SerializeToString()
