"""Keeps what is followed up to date beside the stream: subscriptions, posts that are lacking."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from whimbrel.channel.v1 import channel_pb2, post_pb2
from whimbrel.content.v1.channel_pb2 import ChannelAttributes
from whimbrel.gateway.v1 import gateway_pb2
from whimbrel_client.channels.calls import ChannelCalls
from whimbrel_client.channels.keys import ChannelKey
from whimbrel_client.channels.store import ChannelStore, Heard
from whimbrel_client.crypto import KeyPair
from whimbrel_client.errors import CallFailed, Unreachable

log = logging.getLogger(__name__)

# Who begins to follow a channel gets so many of its earlier posts.
_EARLIER_POSTS = 1_000
_MOST_POSTS = 100
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_ALL = b""  # stands for no channel: all subscriptions are to be listed


class Following:
    """Works beside the stream; what fails for want of the mesh is tried again until it is done."""

    def __init__(
        self,
        store: ChannelStore,
        calls: ChannelCalls,
        identity: Callable[[], Awaitable[KeyPair]],
        *,
        on_changed: Callable[[], None],
    ) -> None:
        """`on_changed` is called when there are posts, or other channels."""
        self._store = store
        self._calls = calls
        self._identity = identity
        self._on_changed = on_changed
        self._posts: list[post_pb2.Post] = []
        self._heads: dict[bytes, int] = {}
        self._late: dict[bytes, int] = {}  # what has failed
        self._is_to_list = False
        self._wake = asyncio.Event()

    def online(self) -> None:
        """A stream is open: other devices may have read, or follow other channels."""
        self._is_to_list = True
        self._wake.set()

    def take(self, event: gateway_pb2.ServerEvent) -> None:
        """A post has come by the stream, or where channels stand."""
        if event.HasField("channel_heads"):
            heads = event.channel_heads.heads
            self._heads |= {one.channel_id: one.head_seq for one in heads}
        elif len(self._posts) < _MOST_POSTS:
            self._posts.append(event.channel_post)
        else:  # too many to be held: they are read instead
            self._heads[event.channel_post.channel_id] = event.channel_post.seq
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled. What fails holds up nothing else, and is tried again later."""
        loop, wait = asyncio.get_running_loop(), _FIRST_WAIT
        again_at: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(again_at):
                    await self._wake.wait()
            self._wake.clear()
            if again_at is not None and loop.time() >= again_at:
                self._heads, self._late = self._late | self._heads, {}
                again_at = None
            await self._work()
            if not self._late:
                again_at, wait = None, _FIRST_WAIT
            elif again_at is None:
                again_at = loop.time() + random.uniform(wait / 2, wait)  # noqa: S311
                wait = min(_LONGEST_WAIT, 2 * wait)

    async def _work(self) -> None:
        if self._is_to_list:
            self._is_to_list = False
            if await self._store.channels():
                await self._tried(_ALL, self.refresh())
        posts, self._posts = self._posts, []
        for post in posts:
            if await self._store.keep_next(post):
                self._on_changed()
            else:
                self._heads[post.channel_id] = post.seq
        heads, self._heads = self._heads, {}
        for channel_id, head_seq in heads.items():
            if channel_id == _ALL:
                await self._tried(_ALL, self.refresh())
            else:
                await self._tried(channel_id, self._read_up_to(channel_id, head_seq), head_seq)

    async def _tried(
        self, channel_id: bytes, work: Coroutine[Any, Any, None], head_seq: int = 0
    ) -> None:
        """Do it now, or put it off."""
        try:
            await work
        except (CallFailed, Unreachable) as error:
            log.warning("channels are behind: %s", error)
            self._late[channel_id] = head_seq

    async def refresh(self, *, with_all: bool = False) -> None:
        """Follow what the account follows by now; look at what is new, or at all channels.

        Raises CallFailed, Unreachable.
        """
        subscriptions = {one.channel_id: one for one in await self._calls.subscriptions()}
        known = {one.channel_id for one in await self._store.channels()}
        for channel_id in known - subscriptions.keys():
            await self._store.remove(channel_id)
        identity = await self._identity()
        for channel_id, subscription in subscriptions.items():
            key = ChannelKey.opened(subscription.sealed_key, identity, channel_id)
            newest = await self._store.newest_key(channel_id)
            if with_all or channel_id not in known or (newest and newest[1]) != key:
                await self._look(channel_id, key)
            await self._store.mark_read(channel_id, subscription.cursor)
        self._on_changed()

    async def _look(self, channel_id: bytes, key: ChannelKey | None) -> None:
        try:
            await self.keep(await self._calls.get(channel_id), key)
        except CallFailed as error:
            if error.reason != "CHANNEL_UNKNOWN":
                raise
            await self._store.remove(channel_id)  # its owner has ended it

    async def keep(self, channel: channel_pb2.Channel, key: ChannelKey | None) -> None:
        """Keep a channel as the mesh tells of it, with its newest key, if that is known."""
        attributes = None if key is None else key.open_attributes(channel.attributes)
        said = ChannelAttributes.FromString(attributes or b"")
        begin = max(channel.oldest_seq - 1, channel.head_seq - _EARLIER_POSTS)
        heard = Heard(
            channel.channel_id,
            said.name,
            said.description,
            channel.role,
            channel.subscribers,
            channel.key_version,
            begin,
        )
        # A key that does not open the attributes is not the newest.
        await self._store.put(heard, None if attributes is None else key)

    async def catch_up(self, channel_id: bytes) -> None:
        """Read all posts that are lacking. Raises CallFailed, Unreachable."""
        while True:
            last_seq = await self._store.last_seq(channel_id)
            if last_seq is None:
                return
            page = await self._calls.posts(channel_id, last_seq)
            if not page.posts:
                return
            last_seq = await self._store.keep(channel_id, page.posts)
            self._on_changed()
            if last_seq >= page.head_seq:
                return

    async def _read_up_to(self, channel_id: bytes, head_seq: int) -> None:
        last_seq = await self._store.last_seq(channel_id)
        if last_seq is None:  # another device follows it
            await self.refresh()
        elif last_seq >= head_seq:
            return
        try:
            await self.catch_up(channel_id)
        except CallFailed as error:
            if error.reason != "CHANNEL_UNKNOWN":
                raise
            await self._store.remove(channel_id)
            self._on_changed()
