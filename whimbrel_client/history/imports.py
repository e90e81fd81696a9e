"""The new device's side: what it keeps of the history that the primary hands to it.

A message that is held already, because it came by itself, is left as it is. What comes from the
history gets cursors below 1, downwards: it lies before everything that this device received.
"""

import hmac
import logging
from typing import Any

from google.protobuf.message import DecodeError

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.content.v1.history_pb2 import (
    History,
    HistoryConversation,
    HistoryMessage,
    HistoryPlace,
    HistoryRequest,
)
from whimbrel.message.v1 import send_pb2
from whimbrel_client.changes import change, change_own
from whimbrel_client.held import Held
from whimbrel_client.model import HistoryProgress, Mark
from whimbrel_client.payload import kind_of
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection

log = logging.getLogger(__name__)

PRIMARY = 1

_EXPECT = "INSERT OR REPLACE INTO history (id, token, linked_at) VALUES (1, ?, ?)"
_STATE = "SELECT token, conversation, seq FROM history WHERE NOT is_complete"
_PROGRESS = "SELECT moved, total, is_complete FROM history"
_LINKED_AT = "SELECT linked_at FROM history WHERE NOT is_complete"
_MOVE_ON = """
UPDATE history SET conversation = ?, seq = ?, moved = moved + ?, total = ?, is_complete = ?
"""
_LOWEST_CURSOR = "SELECT MIN(0, COALESCE(MIN(cursor), 0)) FROM message"
_ADD_MESSAGE = """
INSERT INTO message (cursor, conversation, seq, message_id, sender, sender_device, accepted_at,
    type, ciphertext, content, state, mark, content_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, x'', ?, ?, ?, ?)
"""
_PUT_CONTACT = "INSERT OR IGNORE INTO contact (user_id, handle) VALUES (?, ?)"
_PUT_IDENTITY = "INSERT OR IGNORE INTO identity (user_id, public_key) VALUES (?, ?)"
_PUT_READING = """
INSERT INTO reading (conversation, up_to_seq, recorded_up_to) VALUES (?1, ?2, ?2)
ON CONFLICT (conversation) DO UPDATE
SET up_to_seq = MAX(up_to_seq, ?2), recorded_up_to = MAX(recorded_up_to, ?2)
"""
_PUT_MUTE = "INSERT OR IGNORE INTO mute (conversation, until, decided_at) VALUES (?, ?, 0)"
_CAME_BY_ITSELF = """
SELECT sender, content FROM message
WHERE conversation = ? AND cursor > 0 AND content IS NOT NULL AND state = 0 ORDER BY cursor
"""
_SAID_HERE = """
SELECT ?2, content FROM outgoing
WHERE conversation = ?1 AND content IS NOT NULL AND is_shown ORDER BY id
"""
_SHOWN, _UNREAD = 0, 1
_MARKS = frozenset(map(int, Mark))


def expect(connection: Connection, own: DeviceId, token: bytes, *, now_ms: int) -> None:
    """The primary has offered its history to this device, which has just been linked."""
    connection.execute(_EXPECT, (token, now_ms))
    sessions = Sessions(connection)
    primary = sessions.device(DeviceId(own.user_id, PRIMARY))
    primary.is_linked = primary.has_changed = True
    sessions.save()


def progress(connection: Connection) -> HistoryProgress:
    """How much has come; complete where nothing was offered."""
    row = connection.execute(_PROGRESS).fetchone()
    moved, total, is_complete = (0, 0, True) if row is None else row
    return HistoryProgress(moved, total, bool(is_complete))


def linked_at(connection: Connection) -> int | None:
    """When this device was linked, in ms; None: there is nothing to ask for."""
    row = connection.execute(_LINKED_AT).fetchone()
    return None if row is None else int(row[0])


def request(connection: Connection) -> Content | None:
    """What asks for the next part; None: there is none to ask for."""
    row = connection.execute(_STATE).fetchone()
    if row is None:
        return None
    token, conversation, seq = row
    after = HistoryPlace(conversation=conversation, seq=seq)
    return Content(history_request=HistoryRequest(token=token, after=after))


def take(connection: Connection, held: Held, own: DeviceId, part: History) -> Content | None:
    """Keep a part, and ask for the next; None: it is not the one that is asked for."""
    row = connection.execute(_STATE).fetchone()
    if row is None or not hmac.compare_digest(row[0], part.token):
        return None
    if HistoryPlace(conversation=row[1], seq=row[2]) != part.after:
        return None  # it was kept before
    taking = _Taking(connection, held, own)
    moved = sum(map(taking.keep, part.conversations))
    is_last = not part.HasField("next")
    place = (part.next.conversation, part.next.seq)
    connection.execute(_MOVE_ON, (*place, moved, part.total, is_last))
    asking = HistoryRequest(token=part.token, after=part.next, is_complete=is_last)
    return Content(history_request=asking)


class _Taking:
    """Keeps the conversations of a part."""

    def __init__(self, connection: Connection, held: Held, own: DeviceId) -> None:
        self._connection = connection
        self._held = held
        self._own = own
        (self._cursor,) = connection.execute(_LOWEST_CURSOR).fetchone()

    def keep(self, said: HistoryConversation) -> int:
        """Keep what is not held; returns how many messages there were."""
        if said.messages or said.conversation != self._own.user_id:
            self._meet(said)
        rows = [
            self._row(said.conversation, message)
            for message in said.messages
            if self._held.add(self._connection, said.conversation, message.seq)
        ]
        self._connection.executemany(_ADD_MESSAGE, rows)
        if rows:
            self._change_again(said.conversation)
        return len(said.messages)

    def _meet(self, said: HistoryConversation) -> None:
        conversation, execute = said.conversation, self._connection.execute
        execute(_PUT_READING, (conversation, said.read_up_to))
        if said.handle:
            execute(_PUT_CONTACT, (conversation, said.handle))
        if said.identity_key:
            execute(_PUT_IDENTITY, (conversation, said.identity_key))
        if said.HasField("muted_until"):
            execute(_PUT_MUTE, (conversation, said.muted_until.ToMilliseconds()))

    def _row(self, conversation: bytes, message: HistoryMessage) -> tuple[Any, ...]:
        self._cursor -= 1
        content = _content_of(message)
        kind = send_pb2.CIPHERTEXT_TYPE_RATCHET
        return (
            *(self._cursor, conversation, message.seq, message.message_id),
            *(message.sender, message.sender_device, message.accepted_at.ToMilliseconds()),
            send_pb2.CIPHERTEXT_TYPE_PLAIN if message.is_clear else kind,
            None if content is None else message.content,
            _UNREAD if content is None else _SHOWN,
            message.mark if message.mark in _MARKS else Mark.NONE,
            (content.id or None) if content is not None else None,
        )

    def _change_again(self, conversation: bytes) -> None:
        """Edits and deletions that came before what they are about."""
        came = self._connection.execute(_CAME_BY_ITSELF, (conversation,)).fetchall()
        said = self._connection.execute(_SAID_HERE, (conversation, self._own.user_id)).fetchall()
        for author, raw in came + said:
            content = Content.FromString(raw)
            kind = kind_of(content)
            if kind in {"edit", "delete"} and getattr(content, kind).target.author == author:
                change(self._connection, conversation, content)
                change_own(self._connection, conversation, content)


def _content_of(message: HistoryMessage) -> Content | None:
    """None: it could not be read, there or here."""
    try:
        return Content.FromString(message.content) if message.content else None
    except DecodeError:
        log.warning("a message of the history cannot be read")
        return None
