"""Channels, their keys and posts in the local store."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from whimbrel.channel.v1 import post_pb2
from whimbrel.content.v1.content_pb2 import Content
from whimbrel_client.channels.keys import ChannelKey
from whimbrel_client.channels.model import Channel, ChannelRole, Post
from whimbrel_client.database import Database
from whimbrel_client.model import moment
from whimbrel_client.sqlcipher import Connection

_PUT = """
INSERT INTO channel VALUES (?, ?, ?, ?, ?, ?, ?, 0)
ON CONFLICT (channel_id) DO UPDATE SET name = excluded.name, description = excluded.description,
    role = excluded.role, subscribers = excluded.subscribers, key_version = excluded.key_version
"""
_CHANNELS = """
SELECT channel_id, name, description, role, subscribers, last_seq, read_up_to FROM channel
ORDER BY channel_id
"""
_READ = "UPDATE channel SET read_up_to = max(read_up_to, ?) WHERE channel_id = ?"
_REMOVE = "DELETE FROM channel WHERE channel_id = ?"
_PUT_KEY = "INSERT OR REPLACE INTO channel_key VALUES (?, ?, ?)"
_KEY = "SELECT key FROM channel_key WHERE channel_id = ? AND version = ?"
_NEWEST_KEY = """
SELECT k.version, k.key FROM channel_key k JOIN channel c
    ON c.channel_id = k.channel_id AND c.key_version = k.version
WHERE k.channel_id = ?
"""
_UNREAD = """
SELECT cursor, post_id, ciphertext FROM channel_post
WHERE channel_id = ? AND key_version = ? AND content IS NULL
"""
_OPENED = "UPDATE channel_post SET content = ?, ciphertext = x'' WHERE cursor = ?"
_LAST = "SELECT last_seq FROM channel WHERE channel_id = ?"
_MOVE = "UPDATE channel SET last_seq = ? WHERE channel_id = ?"
_ADD = """
INSERT OR IGNORE INTO channel_post
    (channel_id, seq, post_id, posted_at, key_version, content, ciphertext)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_POSTS = """
SELECT cursor, channel_id, seq, post_id, posted_at, content FROM channel_post
WHERE cursor > ?1 AND (?2 IS NULL OR channel_id = ?2) ORDER BY cursor LIMIT ?3
"""


class Heard(NamedTuple):
    """A channel as the mesh tells of it, with what could be read of it."""

    channel_id: bytes
    name: str
    description: str
    role: int
    subscribers: int
    key_version: int
    # Where reading begins, if the channel is new here.
    last_seq: int


class ChannelStore:
    """The tables of channels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, heard: Heard, key: ChannelKey | None) -> None:
        """Keep a channel, and its newest key if it is known; posts that lacked it are read."""
        await self._database.run(lambda connection: _put(connection, heard, key))

    async def channels(self) -> list[Channel]:
        """All that are followed."""
        rows = await self._database.run(lambda c: c.execute(_CHANNELS).fetchall())
        return [_channel(*row) for row in rows]

    async def remove(self, channel_id: bytes) -> None:
        """Forget a channel and all its posts."""
        await self._database.run(lambda c: c.execute(_REMOVE, (channel_id,)))

    async def newest_key(self, channel_id: bytes) -> tuple[int, ChannelKey] | None:
        """The channel's key and its version, if it is known."""
        row = await self._database.run(lambda c: c.execute(_NEWEST_KEY, (channel_id,)).fetchone())
        return (row[0], ChannelKey(channel_id, row[1])) if row else None

    async def last_seq(self, channel_id: bytes) -> int | None:
        """Up to where posts are stored; None: the channel is not followed."""
        row = await self._database.run(lambda c: c.execute(_LAST, (channel_id,)).fetchone())
        return row[0] if row else None

    async def keep(self, channel_id: bytes, posts: Sequence[post_pb2.Post]) -> int:
        """Keep posts that follow on what is stored, each once; up to where that is now."""
        return await self._database.run(lambda c: _keep(c, channel_id, posts))

    async def keep_next(self, post: post_pb2.Post) -> bool:
        """Keep a post if it is stored already or the next one; False: there is a gap before it."""
        return await self._database.run(lambda connection: _keep_next(connection, post))

    async def posts(self, after: int, *, limit: int, channel_id: bytes | None) -> list[Post]:
        """Posts above a cursor, in local order."""
        wanted = (after, channel_id, limit)
        rows = await self._database.run(lambda c: c.execute(_POSTS, wanted).fetchall())
        return [_post(*row) for row in rows]

    async def mark_read(self, channel_id: bytes, up_to_seq: int) -> None:
        """The account has read so far."""
        await self._database.run(lambda c: c.execute(_READ, (up_to_seq, channel_id)))


def _put(connection: Connection, heard: Heard, key: ChannelKey | None) -> None:
    connection.execute(_PUT, heard)
    if key is None:
        return
    connection.execute(_PUT_KEY, (heard.channel_id, heard.key_version, key.key))
    unread = connection.execute(_UNREAD, (heard.channel_id, heard.key_version)).fetchall()
    for cursor, post_id, ciphertext in unread:
        said = key.open_post(ciphertext, heard.key_version, post_id)
        if said is not None:
            connection.execute(_OPENED, (said, cursor))


def _keep_next(connection: Connection, post: post_pb2.Post) -> bool:
    row = connection.execute(_LAST, (post.channel_id,)).fetchone()
    if row is None or post.seq > row[0] + 1:
        return False
    _keep(connection, post.channel_id, (post,))
    return True


def _keep(connection: Connection, channel_id: bytes, posts: Iterable[post_pb2.Post]) -> int:
    row = connection.execute(_LAST, (channel_id,)).fetchone()
    if row is None:  # not followed any more
        return 0
    last_seq: int = row[0]
    keys: dict[int, ChannelKey | None] = {}
    for post in posts:
        if post.seq > last_seq:
            last_seq = post.seq
            said = _read(connection, keys, post)
            kept = post.ciphertext if said is None else b""
            place = (channel_id, post.seq, post.post_id, post.posted_at.ToMilliseconds())
            connection.execute(_ADD, (*place, post.key_version, said, kept))
    connection.execute(_MOVE, (last_seq, channel_id))
    return last_seq


def _read(
    connection: Connection, keys: dict[int, ChannelKey | None], post: post_pb2.Post
) -> bytes | None:
    version = post.key_version
    if version not in keys:
        row = connection.execute(_KEY, (post.channel_id, version)).fetchone()
        keys[version] = ChannelKey(post.channel_id, row[0]) if row else None
    key = keys[version]
    return None if key is None else key.open_post(post.ciphertext, version, post.post_id)


def _channel(channel_id: bytes, name: str, description: str, role: int, *numbers: int) -> Channel:
    subscribers, last_seq, read_up_to = numbers
    return Channel(
        channel_id, name, description, ChannelRole(role), subscribers, last_seq, read_up_to
    )


def _post(cursor: int, channel_id: bytes, seq: int, *rest: Any) -> Post:
    post_id, posted_at, said = rest
    content = None if said is None else Content.FromString(said)
    return Post(cursor, channel_id, seq, post_id, moment(posted_at), content)
