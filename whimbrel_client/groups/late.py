"""Messages to groups that came before their key are opened once it is here.

They are then kept at a new place in the local order, under the seq that they have.
"""

from typing import TYPE_CHECKING, Any

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.message.v1 import send_pb2
from whimbrel_client.opening import MOST_RETRIES, Arrived, Delivered
from whimbrel_client.payload import retry_request
from whimbrel_client.sessions import DeviceId

if TYPE_CHECKING:
    from whimbrel_client.kept import Keeping

_UNREAD_OF = """
SELECT conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext
FROM message
WHERE conversation = ? AND sender = ? AND sender_device = ? AND state = 1 AND type = ?
ORDER BY seq
"""
_UNREAD = """
SELECT conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext
FROM message
WHERE conversation = ? AND sender = ? AND message_id = ? AND state = 1
"""
_KEYLESS = """
SELECT conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext
FROM message JOIN keyless USING (message_id) WHERE state = 1
"""
_REMEMBER = "INSERT OR IGNORE INTO keyless (message_id) VALUES (?)"
_DROP = "DELETE FROM message WHERE conversation = ? AND seq = ?"


def remember(keeping: "Keeping", message_ids: list[bytes]) -> None:
    """These came before their key; their senders may have to be asked."""
    keeping.connection.executemany(_REMEMBER, [(one,) for one in message_ids])


def key_has_come(keeping: "Keeping", group_id: bytes, sender: DeviceId) -> None:
    """Open what the device wrote to the group before its key came."""
    wanted = (group_id, *sender, send_pb2.CIPHERTEXT_TYPE_SENDER_KEY)
    for row in keeping.connection.execute(_UNREAD_OF, wanted).fetchall():
        _open(keeping, _of_group(row))


def came_directly(keeping: "Keeping", delivered: Delivered, content: Content) -> None:
    """A message to a group was sent anew, person to person: it takes the unread one's place."""
    wanted = (content.to, delivered.sender, content.resent_message_id)
    for row in keeping.connection.execute(_UNREAD, wanted).fetchall():
        said = Content()
        said.CopyFrom(content)
        said.ClearField("resent_message_id")
        _put(keeping, _of_group(row), said)


def ask(keeping: "Keeping") -> None:
    """Open what can be opened by now, and ask the senders of the rest for it, once."""
    asked: dict[tuple[bytes, bytes, int], list[bytes]] = {}
    for row in keeping.connection.execute(_KEYLESS).fetchall():
        delivered = _of_group(row)
        if not _open(keeping, delivered):
            device = (delivered.conversation, delivered.sender, delivered.sender_device)
            asked.setdefault(device, []).append(delivered.message_id)
    keeping.connection.execute("DELETE FROM keyless")
    for (group_id, user_id, device_id), message_ids in asked.items():
        for start in range(0, len(message_ids), MOST_RETRIES):
            some = message_ids[start : start + MOST_RETRIES]
            keeping.queue(user_id, retry_request(device_id, some, group_id))


def _open(keeping: "Keeping", delivered: Delivered) -> bool:
    content = keeping.opening.read(Arrived.of(delivered))
    if content is not None:
        _put(keeping, delivered, content)
    return content is not None


def _of_group(row: tuple[Any, ...]) -> Delivered:
    return Delivered(*row)._replace(is_group=True)


def _put(keeping: "Keeping", delivered: Delivered, content: Content) -> None:
    keeping.connection.execute(_DROP, (delivered.conversation, delivered.seq))
    keeping.keep_read(delivered, content)
    keeping.opened += 1
