"""Members who lack a sender key, or could not read the message that handed it, are answered."""

from whimbrel.content.v1.content_pb2 import Content, RetryRequest
from whimbrel.message.v1 import send_pb2
from whimbrel_client.groups import sending, state
from whimbrel_client.kept import Queued, add_outgoing, queued_of
from whimbrel_client.opening import MOST_RETRIES
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

# How often one message is sent anew; every member may need it once.
_MOST_RESENDS = 5000

_HANDED_BY = """
SELECT hand_out.group_id FROM hand_out JOIN outgoing ON outgoing.id = hand_out.local_id
WHERE outgoing.message_id = ? AND hand_out.user_id = ?
"""
_RESEND = """
UPDATE outgoing SET resends = resends + 1
WHERE message_id = ? AND conversation = ? AND state = 1 AND mark <> 2 AND content IS NOT NULL
    AND resends < ?
RETURNING content, send
"""


def answer(
    connection: Connection,
    sessions: Sessions,
    own: DeviceId,
    asker: bytes,
    request: RetryRequest,
) -> list[Sending]:
    """Hand the key over again, and send what was written to the group before, person to person.

    Only to members, and only what was written since they came.
    """
    groups = {request.group_id} if request.group_id else set()
    if not groups:
        for message_id in request.message_ids[:MOST_RETRIES]:
            rows = connection.execute(_HANDED_BY, (message_id, asker)).fetchall()
            groups |= {group_id for (group_id,) in rows}
    queued: list[Sending] = []
    for group_id in sorted(groups):
        group = state.load(connection, group_id)
        since = state.joined_revision(connection, group_id, asker)
        if group is None or not group.is_member or since is None:
            continue
        sending.hand_out_again(connection, group_id, asker)
        queued += sending.hand_out(connection, sessions, group, own)
        if request.group_id:
            queued += _resent(connection, group_id, asker, request, since)
    return queued


def _resent(
    connection: Connection, group_id: bytes, asker: bytes, request: RetryRequest, since: int
) -> list[Sending]:
    queued = []
    for message_id in request.message_ids[:MOST_RETRIES]:
        wanted = (message_id, group_id, _MOST_RESENDS)
        for said, sent in connection.execute(_RESEND, wanted).fetchall():
            if send_pb2.Send.FromString(sent).revision < since:
                continue
            again = Content.FromString(said)
            again.resent_message_id = message_id
            message = _for(asker, again)
            local_id = add_outgoing(connection, message)
            queued.append(Sending(local_id, asker, message.client_message_id))
    return queued


def _for(asker: bytes, content: Content) -> Queued:
    """To a person; the content says that it was written to the group."""
    key = queued_of(asker, content).client_message_id
    return Queued(asker, key, content.SerializeToString(), is_shown=False)
