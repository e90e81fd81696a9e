"""The primary's side: which history it has offered, and the parts of it, each in a transaction."""

from collections.abc import Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.content.v1.history_pb2 import (
    History,
    HistoryConversation,
    HistoryMessage,
    HistoryPlace,
    HistoryRequest,
)
from whimbrel.message.v1 import send_pb2
from whimbrel_client.clock import days_ms
from whimbrel_client.sessions import DeviceId
from whimbrel_client.sqlcipher import Connection

# What a part holds; one message more may go over it, and the mesh takes three times as much.
PART_BYTES = 60 * 1024

_FORGOTTEN_AFTER_MS = days_ms(30)
_ABOVE_ALL = 2**63 - 1
_FRAMING_BYTES = 8

_FORGET = "DELETE FROM history_offer WHERE made_at < ?"
_OFFER = "INSERT INTO history_offer (token, since, made_at) VALUES (?, ?, ?)"
_TAKE_UP = """
UPDATE history_offer SET device_id = ?2 WHERE token = ?1 AND COALESCE(device_id, ?2) = ?2
RETURNING since, total
"""
_SET_TOTAL = "UPDATE history_offer SET total = ? WHERE token = ?"
_TOTAL = """
SELECT (SELECT COUNT(*) FROM message WHERE state < 2 AND accepted_at >= ?1)
    + (SELECT COUNT(*) FROM outgoing WHERE state = 1 AND is_shown AND accepted_at >= ?1)
"""
_DROP_PARTS = "DELETE FROM outgoing WHERE only_device = ? AND state = 1"
_WITHDRAW = "DELETE FROM history_offer WHERE token = ?"
_REVOKED = "DELETE FROM history_offer WHERE device_id = ?"
_OPEN = "SELECT COUNT(*) FROM history_offer"
_NEXT_CONVERSATION = """
SELECT MIN(conversation) FROM (
    SELECT MIN(conversation) AS conversation FROM held WHERE conversation > ?1
    UNION ALL SELECT MIN(conversation) FROM outgoing WHERE conversation > ?1 AND seq IS NOT NULL)
"""
_ABOUT = """
SELECT contact.handle, identity.public_key, reading.up_to_seq, mute.until
FROM (SELECT ?1 AS conversation) AS c
LEFT JOIN contact ON contact.user_id = c.conversation
LEFT JOIN identity ON identity.user_id = c.conversation
LEFT JOIN reading ON reading.conversation = c.conversation
LEFT JOIN mute ON mute.conversation = c.conversation
"""
_MESSAGES = """
SELECT seq, message_id, sender, sender_device, accepted_at, content, mark, type FROM message
WHERE conversation = ?1 AND seq < ?2 AND accepted_at >= ?3 AND state < 2
UNION ALL
SELECT seq, message_id, ?4, ?5, accepted_at, content, mark, ?6 FROM outgoing
WHERE conversation = ?1 AND seq < ?2 AND accepted_at >= ?3 AND state = 1 AND is_shown
ORDER BY seq DESC LIMIT 1024
"""


def offer(connection: Connection, token: bytes, *, since_ms: int, now_ms: int) -> None:
    """Whoever first asks with this token gets what was accepted since then."""
    connection.execute(_FORGET, (now_ms - _FORGOTTEN_AFTER_MS,))
    connection.execute(_OFFER, (token, since_ms, now_ms))


def withdraw(connection: Connection, token: bytes) -> None:
    """Nobody gets what was offered by this token."""
    connection.execute(_WITHDRAW, (token,))


def count_open(connection: Connection) -> int:
    """How many offers were not taken up, or not to the end."""
    return int(connection.execute(_OPEN).fetchone()[0])


def revoked(connection: Connection, device_id: int) -> None:
    """The device is no more: it gets nothing more, and what is queued for it goes to nobody."""
    connection.execute(_REVOKED, (device_id,))


def answer(
    connection: Connection, own: DeviceId, device_id: int, request: HistoryRequest
) -> Content | None:
    """The part that the own device asks for; None: nothing was offered to it, or it has all."""
    row = connection.execute(_TAKE_UP, (request.token, device_id)).fetchone()
    if row is None:
        return None
    # Who asks for the next has the one before.
    connection.execute(_DROP_PARTS, (device_id,))
    if request.is_complete:
        connection.execute(_WITHDRAW, (request.token,))
        return None
    since, total = row
    if total is None:
        (total,) = connection.execute(_TOTAL, (since,)).fetchone()
        connection.execute(_SET_TOTAL, (total, request.token))
    part = History(token=request.token, after=request.after, total=total)
    _Filling(connection, own, since).fill(part)
    return Content(history=part)


class _Filling:
    """Puts into a part what comes after its place, until it is full."""

    def __init__(self, connection: Connection, own: DeviceId, since_ms: int) -> None:
        self._connection = connection
        self._own = own
        self._since = since_ms
        self._room = PART_BYTES

    def fill(self, part: History) -> None:
        """`part.next` is set if it could not take all."""
        place = HistoryPlace()
        place.CopyFrom(part.after)
        if place.seq:
            self._add(part.conversations.add(conversation=place.conversation), place)
        while self._room > 0:
            (conversation,) = self._connection.execute(
                _NEXT_CONVERSATION, (place.conversation,)
            ).fetchone()
            if conversation is None:
                return
            place = HistoryPlace(conversation=conversation, seq=_ABOVE_ALL)
            self._add(part.conversations.add(conversation=conversation), place, is_first=True)
        part.next.CopyFrom(place)

    def _add(
        self, said: HistoryConversation, place: HistoryPlace, *, is_first: bool = False
    ) -> None:
        """Move the place down by what there is room for; to 0 if that is all."""
        if is_first:
            self._tell_about(said)
        for message in self._messages(place):
            if self._room <= 0:
                return
            said.messages.append(message)
            self._room -= message.ByteSize() + _FRAMING_BYTES
            place.seq = message.seq
        place.seq = 0

    def _tell_about(self, said: HistoryConversation) -> None:
        row = self._connection.execute(_ABOUT, (said.conversation,)).fetchone()
        handle, identity_key, read_up_to, muted_until = row
        said.handle = handle or ""
        said.identity_key = identity_key or b""
        said.read_up_to = read_up_to or 0
        if muted_until:
            said.muted_until.FromMilliseconds(muted_until)
        self._room -= said.ByteSize() + _FRAMING_BYTES

    def _messages(self, place: HistoryPlace) -> Iterator[HistoryMessage]:
        """What is below the place, the newest first."""
        below = place.seq
        ours = (self._own.user_id, self._own.device_id, send_pb2.CIPHERTEXT_TYPE_RATCHET)
        while True:
            wanted = (place.conversation, below, self._since, *ours)
            page = self._connection.execute(_MESSAGES, wanted).fetchall()
            yield from map(_message_of, page)
            if not page:
                return
            below = page[-1][0]


def _message_of(row: tuple[int, bytes, bytes, int, int, bytes | None, int, int]) -> HistoryMessage:
    seq, message_id, sender, sender_device, accepted_at, content, mark, kind = row
    moment = Timestamp()
    moment.FromMilliseconds(accepted_at)
    return HistoryMessage(
        seq=seq,
        message_id=message_id,
        sender=sender,
        sender_device=sender_device,
        accepted_at=moment,
        content=content or b"",
        mark=mark,  # type: ignore[arg-type]  # a Mark is numbered like a HistoryMark
        is_clear=kind == send_pb2.CIPHERTEXT_TYPE_PLAIN,
    )
