"""What arrives is kept as people see it: edits, deletions, what is sent anew, requests for it."""

import os
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError

from whimbrel.content.v1.content_pb2 import Content, MessageName
from whimbrel.message.v1 import send_pb2
from whimbrel_client.model import Mark
from whimbrel_client.opening import MOST_RETRIES, Arrived, Opening
from whimbrel_client.payload import is_shown, kind_of, retry_request
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

# How often one message is sent anew.
_MOST_RESENDS = 3

_ADD_MESSAGE = """
INSERT INTO message (conversation, seq, message_id, sender, sender_device, accepted_at, type,
    ciphertext, content, state, content_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REPLACE_UNREAD = """
UPDATE message SET state = 2
WHERE message_id = ? AND conversation = ? AND sender = ? AND state = 1 RETURNING cursor
"""
_TARGETS = """
SELECT cursor, content FROM message
WHERE conversation = ? AND content_id = ? AND sender = ? AND mark <> 2 AND content IS NOT NULL
"""
_CHANGE_MESSAGE = "UPDATE message SET content = ?, mark = ? WHERE cursor = ?"
_OWN_TARGETS = """
SELECT id, content FROM outgoing
WHERE conversation = ? AND client_message_id = ? AND mark <> 2 AND content IS NOT NULL
"""
_CHANGE_OUTGOING = "UPDATE outgoing SET content = ?, mark = ? WHERE id = ?"
_RESENDABLE = """
UPDATE outgoing SET resends = resends + 1
WHERE message_id = ?1 AND state = 1 AND mark <> 2 AND content IS NOT NULL AND resends < ?2
    AND (conversation = ?3 OR ?4)
RETURNING conversation, content
"""
_ADD_OUTGOING = """
INSERT INTO outgoing (conversation, client_message_id, send, content, is_shown)
VALUES (?, ?, x'', ?, ?)
"""


class State(IntEnum):
    """How a received message stands."""

    SHOWN = 0
    UNREAD = 1
    NOT_SHOWN = 2


class Delivered(NamedTuple):
    """An envelope to keep."""

    conversation: bytes
    seq: int
    message_id: bytes
    sender: bytes
    sender_device: int
    accepted_at: int
    type: int
    ciphertext: bytes


class Queued(NamedTuple):
    """Something to send, until it is settled; not shown: between clients."""

    conversation: bytes
    client_message_id: bytes
    content: bytes
    is_shown: bool = True


@dataclass(slots=True)
class Keeping:
    """Keeps what one transaction brings."""

    connection: Connection
    opening: Opening
    # What this device must send because of it.
    queued: list[Sending] = field(default_factory=list)

    def keep(self, delivered: Delivered) -> None:
        """Keep a message that was never held before."""
        content = self.opening.read(Arrived.of(*delivered))
        if content is None:
            self.connection.execute(_ADD_MESSAGE, (*delivered, None, State.UNREAD, None))
            return
        state = State.SHOWN if self._takes_effect(delivered, content) else State.NOT_SHOWN
        # The ciphertext is of no more use: its key is gone.
        read = delivered._replace(ciphertext=b"")
        row = (*read, content.SerializeToString(), state, content.id or None)
        self.connection.execute(_ADD_MESSAGE, row)

    def ask_again(self) -> None:
        """Ask the devices whose messages could not be read."""
        for device, message_ids in self.opening.unread.items():
            self._queue(device.user_id, retry_request(device.device_id, message_ids))

    def _takes_effect(self, delivered: Delivered, content: Content) -> bool:
        """Do what the content says; whether there is something to show."""
        if content.resent_message_id and not self._replaces(delivered, content.resent_message_id):
            return False
        match kind_of(content):
            case "edit":
                target = content.edit.target
            case "delete":
                target = content.delete.target
            case "retry_request":
                self._send_again(delivered, content)
                return False
            case _:
                return is_shown(content)
        if target.author != delivered.sender:
            return False
        change(self.connection, delivered.conversation, content)
        if delivered.sender == self.opening.own.user_id:
            change_own(self.connection, delivered.conversation, content)
        return True

    def _replaces(self, delivered: Delivered, message_id: bytes) -> bool:
        place = (message_id, delivered.conversation, delivered.sender)
        return self.connection.execute(_REPLACE_UNREAD, place).fetchone() is not None

    def _send_again(self, delivered: Delivered, content: Content) -> None:
        """Send what another device could not read anew, in a new session."""
        own, request = self.opening.own, content.retry_request
        is_clear = delivered.type == send_pb2.CIPHERTEXT_TYPE_PLAIN
        if request.device_id != own.device_id or is_clear:
            return
        if delivered.type == send_pb2.CIPHERTEXT_TYPE_RATCHET:
            arrived = Arrived.of(*delivered)
            self.opening.sessions.put_away(self.opening.sessions.device(arrived.sender))
        is_own = delivered.sender == own.user_id
        for message_id in request.message_ids[:MOST_RETRIES]:
            wanted = (message_id, _MOST_RESENDS, delivered.sender, is_own)
            for conversation, said in self.connection.execute(_RESENDABLE, wanted).fetchall():
                again = Content.FromString(said)
                again.resent_message_id = message_id
                self._queue(conversation, again)

    def _queue(self, conversation: bytes, content: Content) -> None:
        queued = queued_of(conversation, content, is_shown=False)
        local_id = add_outgoing(self.connection, queued)
        self.queued.append(Sending(local_id, conversation, queued.client_message_id))


def queued_of(conversation: bytes, content: Content, *, is_shown: bool = True) -> Queued:
    """The content under a new name, unless it has one, addressed to the conversation."""
    client_message_id = os.urandom(16)
    addressed = Content()
    addressed.CopyFrom(content)
    addressed.id = addressed.id or client_message_id
    addressed.to = conversation
    return Queued(conversation, client_message_id, addressed.SerializeToString(), is_shown)


def add_outgoing(connection: Connection, queued: Queued) -> int:
    """Put something into the queue; returns its local id."""
    return connection.execute(_ADD_OUTGOING, queued).lastrowid or 0


def queue_own(connection: Connection, queued: Queued) -> int:
    """Put what a person says into the queue; an edit or a deletion is done here at once."""
    content = Content.FromString(queued.content)
    if kind_of(content) in {"edit", "delete"}:
        change_own(connection, queued.conversation, content)
        change(connection, queued.conversation, content)
    return add_outgoing(connection, queued)


def change(connection: Connection, conversation: bytes, content: Content) -> None:
    """Do what an author's edit or deletion says to what was received."""
    target = _target(content)
    place = (conversation, target.id, target.author)
    for cursor, said in connection.execute(_TARGETS, place).fetchall():
        connection.execute(_CHANGE_MESSAGE, (*_changed(said, content), cursor))


def change_own(connection: Connection, conversation: bytes, content: Content) -> None:
    """Do the same to what was sent from this device."""
    target = _target(content)
    for local_id, said in connection.execute(_OWN_TARGETS, (conversation, target.id)).fetchall():
        connection.execute(_CHANGE_OUTGOING, (*_changed(said, content), local_id))


def _target(content: Content) -> MessageName:
    return (content.delete if kind_of(content) == "delete" else content.edit).target


def _changed(said: bytes, by: Content) -> tuple[bytes, Mark]:
    if kind_of(by) == "delete":
        return Content(id=by.delete.target.id).SerializeToString(), Mark.DELETED
    try:
        content = Content.FromString(said)
    except DecodeError:
        content = Content(id=by.edit.target.id)
    content.text.CopyFrom(by.edit.text)
    return content.SerializeToString(), Mark.EDITED
