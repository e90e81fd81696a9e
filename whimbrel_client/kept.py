"""What arrives is kept as people see it: edits, deletions, what is sent anew, requests for it."""

import logging
import os
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from whimbrel.content.v1.content_pb2 import Content, RetryRequest
from whimbrel.message.v1 import send_pb2
from whimbrel_client import muting
from whimbrel_client.changes import change, change_own
from whimbrel_client.crypto import CryptoError
from whimbrel_client.groups import late, reading
from whimbrel_client.held import Held
from whimbrel_client.history import imports, offers
from whimbrel_client.history.imports import PRIMARY
from whimbrel_client.opening import MOST_RETRIES, Arrived, Delivered, Opening
from whimbrel_client.payload import is_shown, kind_of, retry_request
from whimbrel_client.sessions import DeviceId
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

log = logging.getLogger(__name__)

# Taken apart when they come.
_KEPT_ELSEWHERE = frozenset({"history", "key_distribution"})

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
_RESENDABLE = """
UPDATE outgoing SET resends = resends + 1
WHERE message_id = ?1 AND state = 1 AND mark <> 2 AND content IS NOT NULL AND resends < ?2
    AND (conversation = ?3 OR ?4)
RETURNING conversation, content, only_device
"""
_ADD_OUTGOING = """
INSERT INTO outgoing (conversation, client_message_id, send, content, is_shown, only_device)
VALUES (?, ?, x'', ?, ?, ?)
"""


class State(IntEnum):
    """How a received message stands."""

    SHOWN = 0
    UNREAD = 1
    NOT_SHOWN = 2


class Queued(NamedTuple):
    """Something to send, until it is settled; not shown: between clients."""

    conversation: bytes
    client_message_id: bytes
    content: bytes
    is_shown: bool = True
    # The own device that alone may read it; None: all.
    only_device: int | None = None


@dataclass(slots=True)
class Keeping:
    """Keeps what one transaction brings."""

    connection: Connection
    opening: Opening
    held: Held = field(default_factory=Held)
    # What this device must send because of it.
    queued: list[Sending] = field(default_factory=list)
    has_moved_history: bool = False
    has_muted: bool = False
    # Messages to groups that came open late, and members who lack a key or messages.
    opened: int = 0
    asking: list[tuple[bytes, RetryRequest]] = field(default_factory=list)

    def keep(self, delivered: Delivered) -> None:
        """Keep a message that was never held before."""
        content = self.opening.read(Arrived.of(delivered))
        if content is None:
            self.connection.execute(_ADD_MESSAGE, (*delivered[:-1], None, State.UNREAD, None))
            return
        self.keep_read(delivered, content)

    def keep_read(self, delivered: Delivered, content: Content) -> None:
        """Keep a message that was read."""
        is_to_group = self._was_to_group(delivered, content)
        state = State.NOT_SHOWN
        if is_to_group:
            late.came_directly(self, delivered, content)
        elif self._takes_effect(delivered, content):
            state = State.SHOWN
        # The ciphertext is of no more use: its key is gone.
        read = delivered._replace(ciphertext=b"")[:-1]
        # Nor is what has its own place by now.
        is_elsewhere = is_to_group or kind_of(content) in _KEPT_ELSEWHERE
        said = None if is_elsewhere else content.SerializeToString()
        row = (*read, said, state, content.id or None)
        self.connection.execute(_ADD_MESSAGE, row)

    def ask_again(self) -> None:
        """Ask the devices whose messages could not be read."""
        for device, message_ids in self.opening.unread.items():
            self.queue(device.user_id, retry_request(device.device_id, message_ids))

    def _takes_effect(self, delivered: Delivered, content: Content) -> bool:
        """Do what the content says; whether there is something to show."""
        if content.resent_message_id and not self._replaces(delivered, content.resent_message_id):
            return False
        match kind_of(content):
            case "edit":
                target = content.edit.target
            case "delete":
                target = content.delete.target
            case _:
                self._answer(delivered, content)
                return is_shown(content)
        if target.author != delivered.sender:
            return False
        change(self.connection, delivered.conversation, content)
        if delivered.sender == self.opening.own.user_id:
            change_own(self.connection, delivered.conversation, content)
        return True

    def _answer(self, delivered: Delivered, content: Content) -> None:
        """Do what another client wants, if it is anything that nobody sees."""
        match kind_of(content):
            case "retry_request":
                self._send_again(delivered, content)
            case "key_distribution":
                self._admit(delivered, content)
            case "history_request" | "history" | "mute":
                self._hear_own_device(delivered, content)

    def _was_to_group(self, delivered: Delivered, content: Content) -> bool:
        return bool(content.resent_message_id) and self.opening.is_of_group(
            content, Arrived.of(delivered)
        )

    def _replaces(self, delivered: Delivered, message_id: bytes) -> bool:
        place = (message_id, delivered.conversation, delivered.sender)
        return self.connection.execute(_REPLACE_UNREAD, place).fetchone() is not None

    def _send_again(self, delivered: Delivered, content: Content) -> None:
        """Send what another device could not read anew, in a new session."""
        own, request = self.opening.own, content.retry_request
        is_clear = delivered.type == send_pb2.CIPHERTEXT_TYPE_PLAIN
        if request.device_id != own.device_id or is_clear:
            return
        self.asking.append((delivered.sender, request))
        if request.group_id:
            return  # the session is good
        if delivered.type == send_pb2.CIPHERTEXT_TYPE_RATCHET:
            arrived = Arrived.of(delivered)
            self.opening.sessions.put_away(self.opening.sessions.device(arrived.sender))
        is_own = delivered.sender == own.user_id
        for message_id in request.message_ids[:MOST_RETRIES]:
            wanted = (message_id, _MOST_RESENDS, delivered.sender, is_own)
            rows = self.connection.execute(_RESENDABLE, wanted).fetchall()
            for conversation, said, only_device in rows:
                again = Content.FromString(said)
                again.resent_message_id = message_id
                self.queue(conversation, again, only_device)

    def _admit(self, delivered: Delivered, content: Content) -> None:
        """Take a sender key, and open what came before it."""
        if delivered.type == send_pb2.CIPHERTEXT_TYPE_PLAIN:
            return
        handed, sender = content.key_distribution, DeviceId(*delivered[3:5])
        try:
            reading.admit(self.connection, sender, handed)
        except CryptoError as error:
            log.warning("a sender key is refused: %s", error)
            return
        late.key_has_come(self, handed.group_id, sender)

    def _hear_own_device(self, delivered: Delivered, content: Content) -> None:
        """Give another own device the part of the history that it asks for, or take one; mute."""
        own = self.opening.own
        is_clear = delivered.type == send_pb2.CIPHERTEXT_TYPE_PLAIN
        if delivered.sender != own.user_id or is_clear:
            return
        if content.HasField("mute"):
            self.has_muted = True
            muting.take(self.connection, content.mute)
            return
        device_id, self.has_moved_history = delivered.sender_device, True
        if content.HasField("history_request"):
            part = offers.answer(self.connection, own, device_id, content.history_request)
            if part is not None:
                self.queue(own.user_id, part, device_id)
        elif device_id == PRIMARY:
            asking = imports.take(self.connection, self.held, own, content.history)
            if asking is not None:
                self.queue(own.user_id, asking)

    def queue(self, conversation: bytes, content: Content, only_device: int | None = None) -> None:
        """Send something because of what came."""
        queued = queued_of(conversation, content, is_shown=False)._replace(only_device=only_device)
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
