"""What readers of channels are given: posts out of memory, as far as they were read before.

A post never changes under its seq, so that what is kept is right for ever; which seqs can be read
is asked each time, once for all who ask at the same moment. So a crowd costs few reads.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from svc_message.channels.model import MOST_A_PAGE, PAGE_BYTES, Page, Post, Standing

_MOST_BYTES = 64 * 1024 * 1024
_POST_BYTES = 512  # about, beside the body


class Posts(Protocol):
    """Where posts are read."""

    async def standing(self, channel_id: bytes) -> Standing: ...

    async def posts(self, channel_id: bytes, first: int, last: int) -> list[Post]: ...


@dataclass(slots=True)
class _Tail:
    """What is kept of one channel."""

    posts: dict[int, Post] = field(default_factory=dict)
    size: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # whoever reads what is not kept


class Timelines:
    """The pages of channels. Raises what the store does."""

    def __init__(self, store: Posts, *, most_bytes: int = _MOST_BYTES) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._tails: OrderedDict[bytes, _Tail] = OrderedDict()  # the latest read last
        self._size = 0
        # Who waits to hear where a channel stands; there is an entry while somebody reads it.
        self._waiting: dict[bytes, list[asyncio.Future[Standing]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def page(self, channel_id: bytes, after_seq: int, limit: int = MOST_A_PAGE) -> Page:
        """Posts above a seq, in a row: `limit` at most, and no more than a page has bytes."""
        standing = await self._standing(channel_id)
        first = max(after_seq + 1, standing.oldest_seq)
        last = min(standing.head_seq, first + limit - 1)
        if first > last:
            return Page((), standing)
        tail = self._tails.setdefault(channel_id, _Tail())
        self._tails.move_to_end(channel_id)
        posts = _taken(tail, first, last)
        if posts is None:
            async with tail.lock:
                await self._fill(channel_id, tail, standing.oldest_seq, (first, last))
            posts = _taken(tail, first, last, is_all=True) or []
        self._drop()
        return Page(posts, standing)

    async def _fill(
        self, channel_id: bytes, tail: _Tail, oldest_seq: int, wanted: tuple[int, int]
    ) -> None:
        """Read what is missing of a page, and forget what nobody can read any more."""
        first, last = wanted
        while _taken(tail, first, last) is None:
            missing = next(seq for seq in range(first, last + 1) if seq not in tail.posts)
            posts = await self._store.posts(channel_id, missing, last)
            if not posts or posts[0].seq != missing:  # its time was over meanwhile
                return
            gone = [tail.posts.pop(seq) for seq in [*tail.posts] if seq < oldest_seq]
            new = [post for post in posts if post.seq not in tail.posts]
            tail.posts |= {post.seq: post for post in new}
            change = sum(map(_size_of, new)) - sum(map(_size_of, gone))
            tail.size += change
            if self._tails.get(channel_id) is tail:  # else it was dropped, and is not counted
                self._size += change

    def _drop(self) -> None:
        """Forget channels, the longest unread first; also one alone that is too big."""
        while self._size > self._most_bytes:
            _, tail = self._tails.popitem(last=False)
            self._size -= tail.size

    async def _standing(self, channel_id: bytes) -> Standing:
        """As it is read from now on, so that whoever was rung finds the post."""
        answer: asyncio.Future[Standing] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(channel_id)
        if waiting is None:
            self._waiting[channel_id] = [answer]
            task = asyncio.create_task(self._read_standings(channel_id), name="channel-standing")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            waiting.append(answer)
        return await answer

    async def _read_standings(self, channel_id: bytes) -> None:
        """Read for all who wait, and again for those who came while it was read."""
        while waiting := self._waiting[channel_id]:
            self._waiting[channel_id] = []
            try:
                standing = await self._store.standing(channel_id)
            except Exception as error:  # noqa: BLE001  given to all who asked
                for answer in waiting:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for answer in waiting:
                    if not answer.done():  # else whoever asked has gone
                        answer.set_result(standing)
        del self._waiting[channel_id]


def _taken(tail: _Tail, first: int, last: int, *, is_all: bool = False) -> list[Post] | None:
    """A page's posts, or what there is of them; None if one is missing and `is_all` is not set."""
    posts: list[Post] = []
    size = 0
    for seq in range(first, last + 1):
        post = tail.posts.get(seq)
        if post is None:
            return posts if is_all else None
        posts.append(post)
        size += len(post.ciphertext)
        if size >= PAGE_BYTES:
            break
    return posts


def _size_of(post: Post) -> int:
    return len(post.ciphertext) + _POST_BYTES
