"""What this device writes to groups with: its sender keys, and who has them."""

from collections.abc import Iterable

from whimbrel.content.v1.content_pb2 import Content, KeyDistribution
from whimbrel.message.v1 import send_pb2
from whimbrel_client.crypto import pad, sender_keys
from whimbrel_client.crypto.stored_sender_keys import dump_sender_key, load_sender_key
from whimbrel_client.groups import state
from whimbrel_client.groups.state import GroupState
from whimbrel_client.kept import add_outgoing, queued_of
from whimbrel_client.payload import is_urgent
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

_KEY = "SELECT key FROM sender_key WHERE group_id = ?"
_PUT_KEY = """
INSERT INTO sender_key (group_id, key) VALUES (?, ?)
ON CONFLICT (group_id) DO UPDATE SET key = excluded.key
"""
_LACKING = """
SELECT user_id FROM group_member AS m WHERE group_id = ?1
    AND NOT EXISTS (SELECT 1 FROM hand_out WHERE group_id = ?1 AND hand_out.user_id = m.user_id)
"""
_ADD_HAND_OUT = "INSERT INTO hand_out (group_id, user_id, local_id) VALUES (?, ?, ?)"
_ANY_BEING_HANDED = """
SELECT 1 FROM hand_out JOIN outgoing ON outgoing.id = hand_out.local_id
WHERE hand_out.group_id = ? AND outgoing.state = 0 AND NOT is_late LIMIT 1
"""
_IS_BEING_HANDED = """
SELECT 1 FROM hand_out JOIN outgoing ON outgoing.id = hand_out.local_id
WHERE hand_out.group_id = ? AND hand_out.user_id = ? AND outgoing.state = 0
"""
_SET_AUDIENCE = "UPDATE outgoing SET audience = ? WHERE id = ?"
_HAND_OUT = "SELECT group_id, user_id FROM hand_out WHERE local_id = ?"
_SENT = "SELECT send FROM outgoing WHERE id = ?"
_RECIPIENT = "SELECT conversation FROM outgoing WHERE id = ?"
_NOT_SHOWN = """
SELECT content FROM outgoing
WHERE id = ? AND NOT is_shown AND only_device IS NULL AND content IS NOT NULL
"""
_HOLDERS = """
SELECT user_id, device_id, registration_id FROM key_holder
WHERE group_id = ? AND user_id = ? AND (is_sure OR NOT ?)
"""
_ADD_HOLDER = """
INSERT OR IGNORE INTO key_holder (group_id, user_id, device_id, registration_id, is_sure)
VALUES (?, ?, ?, ?, 0)
"""
_IS_HOLDER = """
UPDATE key_holder SET is_sure = 1
WHERE group_id = ? AND user_id = ? AND device_id = ? AND registration_id = ?
"""
_FORGET_CONTENT = "UPDATE outgoing SET content = NULL, send = x'' WHERE id = ?"
_BE_LATE = """
UPDATE hand_out SET is_late = 1 WHERE user_id = ? AND NOT is_late RETURNING group_id
"""
_TO = "SELECT conversation FROM outgoing WHERE client_message_id = ? AND state = 0"

# A device and its registration.
Holder = tuple[bytes, int, int]


def seal(
    connection: Connection, group: GroupState, own: DeviceId, sending: Sending, content: bytes
) -> send_pb2.Send | None:
    """Encrypt a message for the group as it is known; None while a key is being handed out."""
    if is_being_handed(connection, group.group_id):
        return None
    key, ciphertext = _key(connection, group.group_id).encrypt(pad(content))
    connection.execute(_PUT_KEY, (group.group_id, dump_sender_key(key)))
    audience = state.members(connection, group.group_id).keys() - {own.user_id}
    connection.execute(_SET_AUDIENCE, (len(audience), sending.local_id))
    body = send_pb2.SharedBody(type=send_pb2.CIPHERTEXT_TYPE_SENDER_KEY, ciphertext=ciphertext.body)
    return send_pb2.Send(
        client_message_id=sending.client_message_id,
        group_id=group.group_id,
        revision=group.revision,
        device_epoch=group.device_epoch,
        shared=body,
        urgent=is_urgent(content),
    )


def is_being_handed(connection: Connection, group_id: bytes) -> bool:
    """Whether the key is on its way to somebody for whom is waited."""
    return connection.execute(_ANY_BEING_HANDED, (group_id,)).fetchone() is not None


def hand_out(
    connection: Connection, sessions: Sessions, group: GroupState, own: DeviceId
) -> list[Sending]:
    """Queue the sender key for every member to whom it was not handed yet.

    Other own devices get it, too, as far as they are known; others ask for it.
    """
    lacking = {row[0] for row in connection.execute(_LACKING, (group.group_id,)).fetchall()}
    if all(device.device_id == own.device_id for device in sessions.linked(own.user_id)):
        if own.user_id in lacking and _has_holders(connection, group.group_id, own.user_id):
            # The last other own device has left.
            state.forget_key(connection, group.group_id)
            return hand_out(connection, sessions, group, own)
        lacking.discard(own.user_id)
    if not lacking:
        return []
    distribution = KeyDistribution(
        group_id=group.group_id,
        distribution=_key(connection, group.group_id).distribution(),
        group_key=group.group_key,
    )
    queued = []
    for user_id in sorted(lacking):
        message = queued_of(user_id, Content(key_distribution=distribution), is_shown=False)
        local_id = add_outgoing(connection, message)
        connection.execute(_ADD_HAND_OUT, (group.group_id, user_id, local_id))
        queued.append(Sending(local_id, user_id, message.client_message_id))
    return queued


def receivers(connection: Connection, local_id: int, named: Iterable[Holder]) -> set[Holder] | None:
    """Of the devices that a message names, those that get the key in it: those that lack it.

    They may have it from now on, whatever becomes of the message. None: it hands out no key.
    """
    row = connection.execute(_HAND_OUT, (local_id,)).fetchone()
    if row is None:
        earlier = _handed_again(connection, local_id)
        if earlier is None:
            return None
        if not _is_current(connection, earlier):
            return set()
        row = earlier.group_id, connection.execute(_RECIPIENT, (local_id,)).fetchone()[0]
    group_id, user_id = row
    have = set(connection.execute(_HOLDERS, (group_id, user_id, True)).fetchall())
    lacking = {holder for holder in named if holder[0] == user_id} - have
    connection.executemany(_ADD_HOLDER, [(group_id, *holder) for holder in lacking])
    return lacking


def handed(connection: Connection, own: DeviceId, local_id: int) -> bytes | None:
    """The message was accepted: whom it names has the key. Returns the group; None: it hands none.

    If a device that may have the key was not named, it has left: the key is made anew.
    """
    row = connection.execute(_HAND_OUT, (local_id,)).fetchone()
    if row is None:
        if _handed_again(connection, local_id) is not None:
            connection.execute(_FORGET_CONTENT, (local_id,))
        return None
    group_id, user_id = row
    (send,) = connection.execute(_SENT, (local_id,)).fetchone()
    bodies = send_pb2.Send.FromString(send).per_device.bodies
    named = {(one.user_id, one.device_id, one.registration_id) for one in bodies}
    connection.executemany(_IS_HOLDER, [(group_id, *holder) for holder in named])
    # A copy of the key in the store would outlive the messages that it opens.
    connection.execute(_FORGET_CONTENT, (local_id,))
    if set(connection.execute(_HOLDERS, (group_id, user_id, False)).fetchall()) - named:
        state.forget_key(connection, group_id)
        return bytes(group_id)
    own_holders = set(connection.execute(_HOLDERS, (group_id, own.user_id, False)).fetchall())
    new = {holder for holder in named if holder[0] == own.user_id} - own_holders
    if new and connection.execute(_IS_BEING_HANDED, (group_id, own.user_id)).fetchone() is None:
        # An own device that was not known when the key was handed to the own ones.
        hand_out_again(connection, group_id, own.user_id)
    return bytes(group_id)


def not_handed(connection: Connection, local_id: int) -> set[bytes]:
    """The message was refused for good. Returns its group, if it was to hand out a key.

    If devices of the account surely had the key, they have left: it is made anew.
    """
    row = connection.execute(_HAND_OUT, (local_id,)).fetchone()
    if row is None:
        return set()
    if _has_holders(connection, *row):
        state.forget_key(connection, row[0])
    return {row[0]}


def hand_out_again(connection: Connection, group_id: bytes, user_id: bytes) -> None:
    """The account's devices may lack the key, whatever was handed to them."""
    key = (group_id, user_id)
    connection.execute("UPDATE key_holder SET is_sure = 0 WHERE group_id = ? AND user_id = ?", key)
    connection.execute("DELETE FROM hand_out WHERE group_id = ? AND user_id = ?", key)


def refused_for_now(connection: Connection, client_message_id: bytes) -> set[bytes]:
    """The mesh refuses a message for now: nobody waits for keys behind it. Returns their groups."""
    rows = connection.execute(_TO, (client_message_id,)).fetchall()
    return set[bytes]().union(*(give_way(connection, user_id) for (user_id,) in rows))


def give_way(connection: Connection, user_id: bytes) -> set[bytes]:
    """Nobody waits for the keys that are on their way to the account. Returns their groups."""
    return {group_id for (group_id,) in connection.execute(_BE_LATE, (user_id,)).fetchall()}


def _handed_again(connection: Connection, local_id: int) -> KeyDistribution | None:
    """The key in a message after which the account is to get it once more; None: there is none."""
    row = connection.execute(_NOT_SHOWN, (local_id,)).fetchone()
    content = Content() if row is None else Content.FromString(row[0])
    return content.key_distribution if content.HasField("key_distribution") else None


def _is_current(connection: Connection, handed: KeyDistribution) -> bool:
    """Whether this device still writes with the key."""
    row = connection.execute(_KEY, (handed.group_id,)).fetchone()
    chain = sender_keys.open_distribution(handed.distribution).chain_id
    return row is not None and load_sender_key(row[0]).chain_id == chain


def _has_holders(connection: Connection, group_id: bytes, user_id: bytes) -> bool:
    return bool(connection.execute(_HOLDERS, (group_id, user_id, True)).fetchall())


def _key(connection: Connection, group_id: bytes) -> sender_keys.SenderKey:
    row = connection.execute(_KEY, (group_id,)).fetchone()
    if row is not None:
        return load_sender_key(row[0])
    key = sender_keys.create(group_id)
    connection.execute(_PUT_KEY, (group_id, dump_sender_key(key)))
    return key
