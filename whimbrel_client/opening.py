"""Ciphertexts that arrive become content, in the transaction that keeps the message.

A message that cannot be read is kept as it came, and its sender's device is asked for it again.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import DecodeError

from whimbrel.content.v1 import content_pb2
from whimbrel.message.v1 import send_pb2
from whimbrel_client.crypto import (
    CryptoError,
    InvalidSignature,
    MalformedMessage,
    Received,
    RepeatedMessage,
    SessionMissing,
    open_prekey,
    open_ratchet,
    unpad,
)
from whimbrel_client.groups import reading, state
from whimbrel_client.own_keys import own_keys, prekeys_of, spend
from whimbrel_client.payload import kind_of
from whimbrel_client.sessions import DeviceId, KnownDevice, Sessions
from whimbrel_client.sqlcipher import Connection

log = logging.getLogger(__name__)

# After so many messages of a device that could not be read it is asked for no more.
_MOST_FAILURES = 5
MOST_RETRIES = 256
# Between two devices, and not for all of a group.
_DIRECT_ONLY = frozenset({"key_distribution", "retry_request", "history_request", "history"})


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
    # The conversation is a group.
    is_group: bool = False


class Arrived(NamedTuple):
    """A ciphertext as it arrived."""

    sender: DeviceId
    conversation: bytes
    message_id: bytes
    type: int
    ciphertext: bytes
    is_group: bool

    @classmethod
    def of(cls, delivered: Delivered) -> "Arrived":
        """The ciphertext in an envelope."""
        return cls(
            DeviceId(delivered.sender, delivered.sender_device),
            delivered.conversation,
            delivered.message_id,
            delivered.type,
            delivered.ciphertext,
            delivered.is_group,
        )


class _NotToBeRead(Exception):
    """The message is refused, and not asked for again."""


@dataclass(slots=True)
class Opening:
    """Reads what one transaction brings."""

    connection: Connection
    sessions: Sessions
    own: DeviceId
    # What could not be read, by the device to ask for it again.
    unread: dict[DeviceId, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    # Messages to groups that came before the key that opens them.
    keyless: list[bytes] = field(default_factory=list)

    def read(self, arrived: Arrived) -> content_pb2.Content | None:
        """The content; None: it cannot be read."""
        try:
            if arrived.type == send_pb2.CIPHERTEXT_TYPE_PLAIN:
                return self._plain(arrived)
            if arrived.is_group or arrived.type == send_pb2.CIPHERTEXT_TYPE_SENDER_KEY:
                return self._of_group(arrived)
            return self._addressed(_parsed(self._decrypted(arrived)), arrived)
        except (RepeatedMessage, _NotToBeRead) as error:
            log.warning("a message is refused: %s", error)
        except CryptoError as error:
            log.warning("a message cannot be read: %s", error)
            self._ask_again(arrived)
        return None

    def _plain(self, arrived: Arrived) -> content_pb2.Content:
        """Only services write in the clear: who has an identity never does."""
        sender = arrived.sender.user_id
        if sender == self.own.user_id or self.sessions.identity(sender) is not None:
            raise _NotToBeRead("a message in the clear of somebody who encrypts")
        try:
            return _parsed(arrived.ciphertext)
        except MalformedMessage as error:
            raise _NotToBeRead(str(error)) from error

    def _of_group(self, arrived: Arrived) -> content_pb2.Content:
        if not arrived.is_group or arrived.type != send_pb2.CIPHERTEXT_TYPE_SENDER_KEY:
            raise _NotToBeRead("a group's ciphertext to a person, or the reverse")
        group_id, sender = arrived.conversation, arrived.sender
        try:
            plaintext = reading.read(self.connection, group_id, sender, arrived.ciphertext)
            content = _parsed(plaintext)
        except SessionMissing as error:
            self.keyless.append(arrived.message_id)
            raise _NotToBeRead(str(error)) from error
        except CryptoError as error:
            raise _NotToBeRead(str(error)) from error
        if content.to not in {b"", group_id} or kind_of(content) in _DIRECT_ONLY:
            raise _NotToBeRead("the message was not written to the group")
        return content

    def _decrypted(self, arrived: Arrived) -> bytes:
        device = self.sessions.device(arrived.sender)
        if arrived.type == send_pb2.CIPHERTEXT_TYPE_RATCHET:
            received = self._ratchet(arrived, device)
        elif arrived.type == send_pb2.CIPHERTEXT_TYPE_PREKEY:
            received = self._first(arrived, device)
        else:
            raise MalformedMessage(f"a ciphertext of type {arrived.type}")
        return unpad(received.plaintext)

    def _ratchet(self, arrived: Arrived, device: KnownDevice) -> Received:
        received = device.record.decrypt(open_ratchet(arrived.ciphertext))
        self.sessions.have_read(device, received)
        return received

    def _first(self, arrived: Arrived, device: KnownDevice) -> Received:
        message, keys = open_prekey(arrived.ciphertext), own_keys(self.connection)
        if keys is None:
            raise MalformedMessage("this device has no keys")
        own_identity = keys.device.identity.public
        if arrived.sender.user_id == self.own.user_id and message.identity != own_identity:
            raise InvalidSignature("a device of this account with another identity")
        prekeys = None
        if device.record.needs_prekeys(message):
            prekeys = prekeys_of(self.connection, message)
        received = device.record.decrypt_first(message, keys.device, prekeys)
        self.sessions.have_read(device, received)
        if received.spent is not None:
            self.sessions.met(arrived.sender, message)
            spend(self.connection, received.spent)
        return received

    def _addressed(self, content: content_pb2.Content, arrived: Arrived) -> content_pb2.Content:
        """Raise MalformedMessage if the mesh moved the message to another conversation."""
        is_own = arrived.sender.user_id == self.own.user_id
        expected = arrived.conversation if is_own else self.own.user_id
        is_of_group = content.resent_message_id and self.is_of_group(content, arrived)
        if content.to not in {b"", expected} and not is_of_group:
            raise MalformedMessage("the message was written to somebody else")
        return content

    def is_of_group(self, content: content_pb2.Content, arrived: Arrived) -> bool:
        """Whether it was sent anew, person to person, because a group's key was lacking."""
        is_direct = content.to in {arrived.conversation, self.own.user_id}
        return not is_direct and state.load(self.connection, content.to) is not None

    def _ask_again(self, arrived: Arrived) -> None:
        device = self.sessions.device(arrived.sender)
        device.failures += 1
        device.has_changed = True
        if device.failures <= _MOST_FAILURES or arrived.sender in self.unread:
            asked = self.unread[arrived.sender]
            if len(asked) < MOST_RETRIES:
                asked.append(arrived.message_id)
        self.sessions.put_away(device)


def _parsed(content: bytes) -> content_pb2.Content:
    try:
        return content_pb2.Content.FromString(content)
    except DecodeError as error:
        raise MalformedMessage("the plaintext is no content") from error
