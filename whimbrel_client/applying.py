"""What one batch of frames brings, and what it makes of the local store, in one transaction."""

from dataclasses import dataclass, field
from typing import NamedTuple

from whimbrel.message.v1 import send_pb2
from whimbrel_client.groups import late, state
from whimbrel_client.groups.answering import answer
from whimbrel_client.groups.sending import handed, not_handed, refused_for_now
from whimbrel_client.groups.store import merge_tallies
from whimbrel_client.held import Held
from whimbrel_client.kept import Keeping
from whimbrel_client.model import Alarm, Outcome, Receipt, SendState
from whimbrel_client.opening import Delivered, Opening
from whimbrel_client.ranges import SeqRanges
from whimbrel_client.rows import RECEIPT, outcome_of, packed, receipt_of
from whimbrel_client.sealing import Mismatched, unseal, unseal_to_group
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

_OTHER_AT = """
SELECT message_id FROM message WHERE conversation = ?1 AND seq = ?2 AND message_id <> ?3
UNION ALL
SELECT message_id FROM outgoing WHERE conversation = ?1 AND seq = ?2 AND message_id <> ?3
"""
_ADD_ALARM = """
INSERT OR IGNORE INTO alarm (conversation, seq, kept_message_id, other_message_id)
VALUES (?, ?, ?, ?)
"""
# A send that was given up as not confirmed may still be accepted: good news is always taken.
_ACCEPT = """
UPDATE outgoing SET state = 1, message_id = ?, seq = ?, accepted_at = ?
WHERE client_message_id = ? AND state IN (0, 3)
RETURNING id, conversation
"""
_REFUSE = """
UPDATE outgoing SET state = ?, reason = ? WHERE client_message_id = ? AND state = 0
RETURNING id
"""
_PUT_RECEIPT = """
INSERT INTO receipt (conversation, peer, version, delivered, read_up_to) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (conversation, peer) DO UPDATE
SET version = excluded.version, delivered = excluded.delivered, read_up_to = excluded.read_up_to
"""
_RECORDED = "UPDATE reading SET recorded_up_to = MAX(recorded_up_to, ?) WHERE conversation = ?"


class Accepted(NamedTuple):
    """The mesh has a send."""

    client_message_id: bytes
    message_id: bytes
    seq: int
    accepted_at: int


class Refused(NamedTuple):
    """The mesh will never have a send; NOT_CONFIRMED: or has had it long ago."""

    client_message_id: bytes
    state: SendState
    reason: str


@dataclass(slots=True)
class Changes:
    """All that one batch of frames brought."""

    delivered: list[Delivered] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    recorded: list[tuple[bytes, int]] = field(default_factory=list)
    mismatched: list[Mismatched] = field(default_factory=list)
    # Sends to groups that had changed, and sends that were refused for now.
    group_changes: list[send_pb2.GroupChanged] = field(default_factory=list)
    postponed: list[bytes] = field(default_factory=list)
    # Of own messages, by group and seq: delivered to, read by.
    tallies: dict[tuple[bytes, int], tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Applied:
    """What a batch of frames changed."""

    new_messages: int = 0
    settled: list[tuple[int, Outcome]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    # What this device must send because of it.
    queued: list[Sending] = field(default_factory=list)
    identity_changes: int = 0
    # Groups of which too little is known, and those whose keys are handed out perhaps.
    behind: set[bytes] = field(default_factory=set)
    ready: set[bytes] = field(default_factory=set)
    is_keyless: bool = False
    # A part of a history has gone or come.
    has_moved_history: bool = False
    has_muted: bool = False


def apply(connection: Connection, changes: Changes, own: DeviceId, held: Held) -> Applied:
    """Keep all that came, each message once, in this transaction."""
    applied, sessions = Applied(), Sessions(connection)
    keeping = Keeping(connection, Opening(connection, sessions, own), held)
    for accepted in changes.accepted:
        _accept(connection, accepted, own, held, applied)
    for refused in changes.refused:
        _refuse(connection, refused, applied)
    for key in changes.postponed:
        applied.ready |= refused_for_now(connection, key)
    for delivered in changes.delivered:
        _keep(keeping, delivered, applied)
    held.save(connection)
    for mismatched in changes.mismatched:
        unseal(connection, sessions, mismatched)
    for changed in changes.group_changes:
        unseal_to_group(connection, own.user_id, changed, applied.behind)
    keeping.ask_again()
    late.remember(keeping, keeping.opening.keyless)
    applied.is_keyless = bool(keeping.opening.keyless)
    applied.new_messages += keeping.opened
    for asker, request in keeping.asking:
        keeping.queued += answer(connection, sessions, own, asker, request)
    sessions.save()
    merge_tallies(connection, changes.tallies)
    applied.queued, applied.identity_changes = keeping.queued, sessions.identity_changes
    applied.has_moved_history = keeping.has_moved_history
    applied.has_muted = keeping.has_muted
    for receipt in changes.receipts:
        _merge_receipt(connection, receipt)
    for conversation, up_to_seq in changes.recorded:
        connection.execute(_RECORDED, (up_to_seq, conversation))
    return applied


def _keep(keeping: Keeping, delivered: Delivered, applied: Applied) -> None:
    group_id, sender = delivered.conversation, delivered.sender
    if delivered.is_group and not state.knows(keeping.connection, group_id, sender):
        applied.behind.add(group_id)
    if keeping.held.add(keeping.connection, delivered.conversation, delivered.seq):
        keeping.keep(delivered)
        applied.new_messages += 1
    else:
        place = (delivered.conversation, delivered.seq)
        _compare(keeping.connection, place, delivered.message_id, applied)


def _accept(
    connection: Connection, accepted: Accepted, own: DeviceId, held: Held, applied: Applied
) -> None:
    client_message_id, message_id, seq, accepted_at = accepted
    place = connection.execute(_ACCEPT, (message_id, seq, accepted_at, client_message_id))
    row = place.fetchone()
    if row is None:
        return  # answered before
    local_id, conversation = row
    outcome = outcome_of((SendState.ACCEPTED, message_id, seq, accepted_at, None))
    applied.settled.append((local_id, outcome))
    group_id = handed(connection, own, local_id)
    if group_id is not None:
        applied.ready.add(group_id)
    if not held.add(connection, conversation, seq):
        _compare(connection, (conversation, seq), message_id, applied)


def _compare(
    connection: Connection, place: tuple[bytes, int], message_id: bytes, applied: Applied
) -> None:
    """A place is claimed again: by the same message, or the server has broken its promise."""
    kept = connection.execute(_OTHER_AT, (*place, message_id)).fetchone()
    if kept is None:
        return
    connection.execute(_ADD_ALARM, (*place, kept[0], message_id))
    applied.alarms.append(Alarm(*place, kept[0], message_id))


def _refuse(connection: Connection, refused: Refused, applied: Applied) -> None:
    client_message_id, state, reason = refused
    row = connection.execute(_REFUSE, (state, reason, client_message_id)).fetchone()
    if row is not None:
        applied.settled.append((row[0], Outcome(state, reason=reason)))
        applied.ready |= not_handed(connection, row[0])


def _merge_receipt(connection: Connection, receipt: Receipt) -> None:
    """Union with what is kept: a receipt never goes back, whatever comes."""
    delivered, read_up_to, version = receipt.delivered, receipt.read_up_to, receipt.version
    key = (receipt.conversation, receipt.peer)
    row = connection.execute(RECEIPT, key).fetchone()
    if row is not None:
        kept = receipt_of(row)
        delivered = SeqRanges([*kept.delivered, *delivered])
        read_up_to = max(read_up_to, kept.read_up_to)
        version = max(version, kept.version)
    connection.execute(_PUT_RECEIPT, (*key, version, packed(delivered), read_up_to))
