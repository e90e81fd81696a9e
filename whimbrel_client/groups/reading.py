"""Messages to groups are read, with the keys that their senders' devices handed over."""

from whimbrel.content.v1 import content_pb2
from whimbrel_client.crypto import MalformedMessage, sender_keys, unpad
from whimbrel_client.crypto.stored_sender_keys import dump_reader, load_reader
from whimbrel_client.groups import attributes, state
from whimbrel_client.sessions import DeviceId
from whimbrel_client.sqlcipher import Connection

_READER = "SELECT reader FROM key_reader WHERE group_id = ? AND user_id = ? AND device_id = ?"
_PUT_READER = """
INSERT INTO key_reader (group_id, user_id, device_id, reader) VALUES (?, ?, ?, ?)
ON CONFLICT (group_id, user_id, device_id) DO UPDATE SET reader = excluded.reader
"""


def read(connection: Connection, group_id: bytes, sender: DeviceId, ciphertext: bytes) -> bytes:
    """The plaintext; the sender's key has moved on.

    Who may write to the group is the mesh's to say, as it says who is a member. Raises
    SessionMissing if the key is not here, and other CryptoErrors if it cannot be read at all; then
    nothing has changed.
    """
    message = sender_keys.open_message(ciphertext)
    if message.distribution_id != group_id:
        raise MalformedMessage("the message was written to another group")
    reader, plaintext = _reader(connection, group_id, sender).decrypt(message)
    _put(connection, group_id, sender, reader)
    return unpad(plaintext)


def admit(connection: Connection, sender: DeviceId, handed: content_pb2.KeyDistribution) -> None:
    """Take the key that a device hands over. Raises CryptoError if it is none."""
    distribution = sender_keys.open_distribution(handed.distribution)
    if distribution.distribution_id != handed.group_id:
        raise MalformedMessage("the key is for another group")
    group = state.meet(connection, handed.group_id)
    reader = _reader(connection, handed.group_id, sender).admit(distribution)
    _put(connection, handed.group_id, sender, reader)
    if _is_better(group, handed.group_key):
        state.put(connection, group._replace(group_key=handed.group_key))


def _is_better(group: state.GroupState, key: bytes) -> bool:
    """A key that opens the attributes; before they are known, the first that comes."""
    if len(key) != attributes.KEY_BYTES:
        return False
    if attributes.unseal(group.attributes, group.group_key) is not None:
        return False
    return not group.group_key or attributes.unseal(group.attributes, key) is not None


def _reader(
    connection: Connection, group_id: bytes, sender: DeviceId
) -> sender_keys.SenderKeyReader:
    row = connection.execute(_READER, (group_id, *sender)).fetchone()
    return sender_keys.SenderKeyReader() if row is None else load_reader(row[0])


def _put(
    connection: Connection, group_id: bytes, sender: DeviceId, reader: sender_keys.SenderKeyReader
) -> None:
    connection.execute(_PUT_READER, (group_id, *sender, dump_reader(reader)))
