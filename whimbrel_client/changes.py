"""What its author's edits and deletions do to a message that is kept, received or own."""

from google.protobuf.message import DecodeError

from whimbrel.content.v1.content_pb2 import Content, MessageName
from whimbrel_client.model import Mark
from whimbrel_client.payload import kind_of
from whimbrel_client.sqlcipher import Connection

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
