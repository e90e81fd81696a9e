"""What a device keeps: messages, its own sends, receipts, readings; all SQL is here.

Each method is one transaction, committed when it returns. It knows no stream and no time.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from whimbrel.message.v1 import send_pb2
from whimbrel_client.channels.store import ChannelStore
from whimbrel_client.database import Database
from whimbrel_client.groups import late, state
from whimbrel_client.groups.answering import answer
from whimbrel_client.groups.sending import handed, not_handed, refused_for_now
from whimbrel_client.groups.store import GroupStore, merge_tallies, tally_of
from whimbrel_client.held import Held
from whimbrel_client.history.store import HistoryStore
from whimbrel_client.kept import Keeping, Queued, queue_own
from whimbrel_client.key_store import KeyStore
from whimbrel_client.media.uploads import UploadStore
from whimbrel_client.model import (
    Alarm,
    Conversation,
    Message,
    Outcome,
    OutgoingMessage,
    Receipt,
    SendState,
    Tick,
)
from whimbrel_client.mute_store import MuteStore
from whimbrel_client.opening import Delivered, Opening
from whimbrel_client.ranges import SeqRanges
from whimbrel_client.rows import message_of, outcome_of, outgoing_of, packed, receipt_of
from whimbrel_client.schema import MIGRATIONS
from whimbrel_client.sealing import Mismatched, Sealed, Sealing, unseal, unseal_to_group
from whimbrel_client.sessions import NOBODY, DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.store_key import BY_ITSELF, Protection
from whimbrel_client.sync import Sending, Wanted

log = logging.getLogger(__name__)

_MESSAGES = """
SELECT cursor, conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext,
    content, mark
FROM message WHERE cursor > ?1 AND (?3 IS NULL OR conversation = ?3) AND state <> 2
ORDER BY cursor LIMIT ?2
"""
_OTHER_AT = """
SELECT message_id FROM message WHERE conversation = ?1 AND seq = ?2 AND message_id <> ?3
UNION ALL
SELECT message_id FROM outgoing WHERE conversation = ?1 AND seq = ?2 AND message_id <> ?3
"""
_ADD_ALARM = """
INSERT OR IGNORE INTO alarm (conversation, seq, kept_message_id, other_message_id)
VALUES (?, ?, ?, ?)
"""
_WAITING = "SELECT conversation, MAX(id) FROM outgoing WHERE state = 0 GROUP BY conversation"
_COUNT_WAITING = "SELECT COUNT(*) FROM outgoing WHERE state = 0"
_LOAD_OUTGOING = """
SELECT id, conversation, client_message_id, send, first_tried_at FROM outgoing
WHERE conversation = ? AND id > ? AND id <= ? AND state = 0 ORDER BY id LIMIT ?
"""
_MARK_TRIED = "UPDATE outgoing SET first_tried_at = ? WHERE id = ? AND first_tried_at IS NULL"
_GIVE_UP = "UPDATE outgoing SET state = 3 WHERE id = ? AND state = 0"
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
_OUTGOING = """
SELECT id, conversation, client_message_id, content, mark,
    state, message_id, seq, accepted_at, reason
FROM outgoing WHERE id > ? AND is_shown ORDER BY id LIMIT ?
"""
_RECEIPT = """
SELECT version, conversation, peer, delivered, read_up_to FROM receipt
WHERE conversation = ? AND peer = ?
"""
_RECEIPTS = """
SELECT version, conversation, peer, delivered, read_up_to FROM receipt
WHERE version > ? ORDER BY version LIMIT ?
"""
_PUT_RECEIPT = """
INSERT INTO receipt (conversation, peer, version, delivered, read_up_to) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (conversation, peer) DO UPDATE
SET version = excluded.version, delivered = excluded.delivered, read_up_to = excluded.read_up_to
"""
_RECEIPT_VERSION = "SELECT COALESCE(MAX(version), 0) FROM receipt"
_READ = """
INSERT INTO reading (conversation, up_to_seq, recorded_up_to) VALUES (?1, ?2, ?3)
ON CONFLICT (conversation) DO UPDATE
SET up_to_seq = MAX(up_to_seq, ?2), recorded_up_to = MAX(recorded_up_to, ?3)
"""
_UNRECORDED = "SELECT conversation, up_to_seq FROM reading WHERE up_to_seq > recorded_up_to"
_RECORDED = "UPDATE reading SET recorded_up_to = MAX(recorded_up_to, ?) WHERE conversation = ?"
_GREATEST_SEQ = "SELECT MAX(seq) FROM message WHERE conversation = ? AND seq <= ?"
_CONVERSATIONS = """
SELECT c.conversation, contact.handle,
    (SELECT COALESCE(MAX(last), 0) FROM held WHERE held.conversation = c.conversation),
    COALESCE(reading.up_to_seq, 0),
    (SELECT COUNT(*) FROM message WHERE message.conversation = c.conversation
        AND message.sender <> ?1 AND message.seq > COALESCE(reading.up_to_seq, 0)
        AND message.state <> 2),
    (SELECT COUNT(*) FROM outgoing WHERE outgoing.conversation = c.conversation AND state = 0
        AND is_shown)
FROM (SELECT DISTINCT conversation FROM message WHERE state <> 2
      UNION SELECT conversation FROM outgoing WHERE is_shown
      UNION SELECT conversation FROM reading
      UNION SELECT group_id FROM group_state WHERE revision > 0) AS c
LEFT JOIN reading ON reading.conversation = c.conversation
LEFT JOIN contact ON contact.user_id = c.conversation
ORDER BY contact.handle, c.conversation
"""
_PUT_CONTACT = """
INSERT INTO contact (user_id, handle) VALUES (?, ?)
ON CONFLICT (handle) DO UPDATE SET user_id = excluded.user_id
ON CONFLICT (user_id) DO UPDATE SET handle = excluded.handle
"""
_CONTACT_NAMED = "SELECT user_id FROM contact WHERE handle = ?"
_HANDLE_OF = "SELECT handle FROM contact WHERE user_id = ?"
_ALARMS = "SELECT conversation, seq, kept_message_id, other_message_id FROM alarm ORDER BY id"


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


class Store:
    """The local store of one device."""

    def __init__(
        self, path: Path, protection: Protection = BY_ITSELF, *, own: DeviceId = NOBODY
    ) -> None:
        self._own = own
        self._sealing = Sealing(own)
        self._database = Database(path, protection, migrations=MIGRATIONS)
        self.keys = KeyStore(self._database, own)
        self.history = HistoryStore(self._database, own)
        self.mutes = MuteStore(self._database, own)
        self.groups = GroupStore(self._database, own)
        self.channels = ChannelStore(self._database)
        self.uploads = UploadStore(self._database)
        self._held = Held()
        self._database.on_rollback = self._held.forget

    async def open(self) -> None:
        """Open it. Raises ProfileInUse, StoreTooNew and StoreKeyFailed."""
        await self._database.open()

    async def close(self) -> None:
        """Finish what was begun and close it."""
        await self._database.close()

    # Sends.

    def queue(self, sends: Sequence[Queued]) -> asyncio.Future[list[int]]:
        """Keep the sends, in this order; returns their local ids."""

        def operation(connection: Connection) -> list[int]:
            return [queue_own(connection, queued) for queued in sends]

        return self._database.run(operation)

    async def queues(self) -> list[tuple[bytes, int]]:
        """Conversations with sends that wait, each with its last local id."""
        return await self._database.run(lambda c: c.execute(_WAITING).fetchall())

    async def count_waiting(self) -> int:
        """How many sends wait to be accepted."""
        rows = await self._database.run(lambda c: c.execute(_COUNT_WAITING).fetchall())
        return int(rows[0][0])

    async def load(self, wanted: Sequence[Wanted]) -> list[list[Sending]]:
        """For each that is wanted, the sends that wait, in order of queueing."""

        def operation(connection: Connection) -> list[list[Sending]]:
            execute = connection.execute
            return [[Sending(*row) for row in execute(_LOAD_OUTGOING, one)] for one in wanted]

        return await self._database.run(operation)

    async def seal(self, sends: Sequence[Sending]) -> Sealed:
        """Encrypt sends for all devices that must have them; a retry sends the same bytes."""
        return await self._database.run(lambda c: self._sealing.seal(c, sends))

    async def renew(self, sends: Sequence[Sending]) -> dict[int, bytes]:
        """Encrypt anew what has waited for too long to be read; the new bytes by local id."""
        return await self._database.run(lambda c: self._sealing.renew(c, sends))

    async def mark_tried(self, sends: Sequence[Sending], at_ms: int) -> None:
        """Keep when these were first tried; never changed once set."""
        rows = [(at_ms, sending.local_id) for sending in sends]
        await self._database.run(_many(_MARK_TRIED, rows))

    async def give_up(self, sends: Sequence[Sending]) -> None:
        """These are not confirmed and will not be tried again."""
        rows = [(sending.local_id,) for sending in sends]
        await self._database.run(_many(_GIVE_UP, rows))

    async def outgoing(self, after: int, *, limit: int) -> list[OutgoingMessage]:
        """Own messages above the local id, oldest first."""
        rows = await self._database.run(lambda c: c.execute(_OUTGOING, (after, limit)).fetchall())
        return [outgoing_of(row) for row in rows]

    # What comes from the mesh.

    async def apply(self, changes: Changes) -> Applied:
        """Keep all that came, each message once."""
        return await self._database.run(lambda c: self._apply(c, changes))

    def _apply(self, connection: Connection, changes: Changes) -> Applied:
        applied, sessions = Applied(), Sessions(connection)
        keeping = Keeping(connection, Opening(connection, sessions, self._own), self._held)
        for accepted in changes.accepted:
            self._accept(connection, accepted, applied)
        for refused in changes.refused:
            _refuse(connection, refused, applied)
        for key in changes.postponed:
            applied.ready |= refused_for_now(connection, key)
        for delivered in changes.delivered:
            self._keep(keeping, delivered, applied)
        self._held.save(connection)
        for mismatched in changes.mismatched:
            unseal(connection, sessions, mismatched)
        for changed in changes.group_changes:
            unseal_to_group(connection, self._own.user_id, changed, applied.behind)
        keeping.ask_again()
        late.remember(keeping, keeping.opening.keyless)
        applied.is_keyless = bool(keeping.opening.keyless)
        applied.new_messages += keeping.opened
        for asker, request in keeping.asking:
            keeping.queued += answer(connection, sessions, self._own, asker, request)
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

    def _keep(self, keeping: Keeping, delivered: Delivered, applied: Applied) -> None:
        group_id, sender = delivered.conversation, delivered.sender
        if delivered.is_group and not state.knows(keeping.connection, group_id, sender):
            applied.behind.add(group_id)
        if self._held.add(keeping.connection, delivered.conversation, delivered.seq):
            keeping.keep(delivered)
            applied.new_messages += 1
        else:
            place = (delivered.conversation, delivered.seq)
            _compare(keeping.connection, place, delivered.message_id, applied)

    def _accept(self, connection: Connection, accepted: Accepted, applied: Applied) -> None:
        client_message_id, message_id, seq, accepted_at = accepted
        place = connection.execute(_ACCEPT, (message_id, seq, accepted_at, client_message_id))
        row = place.fetchone()
        if row is None:
            return  # answered before
        local_id, conversation = row
        outcome = outcome_of((SendState.ACCEPTED, message_id, seq, accepted_at, None))
        applied.settled.append((local_id, outcome))
        group_id = handed(connection, self._own, local_id)
        if group_id is not None:
            applied.ready.add(group_id)
        if not self._held.add(connection, conversation, seq):
            _compare(connection, (conversation, seq), message_id, applied)

    # What the application reads.

    async def messages(
        self, after: int, *, limit: int, conversation: bytes | None = None
    ) -> list[Message]:
        """Received messages above the cursor, in local order."""
        wanted = (after, limit, conversation)
        rows = await self._database.run(lambda c: c.execute(_MESSAGES, wanted).fetchall())
        return [message_of(row) for row in rows]

    async def receipts(self, after: int, *, limit: int) -> list[Receipt]:
        """Receipts above the version, lowest first."""
        rows = await self._database.run(lambda c: c.execute(_RECEIPTS, (after, limit)).fetchall())
        return [receipt_of(row) for row in rows]

    async def receipt_version(self) -> int:
        """The greatest version that is kept."""
        rows = await self._database.run(lambda c: c.execute(_RECEIPT_VERSION).fetchall())
        return int(rows[0][0])

    async def tick(self, local_id: int) -> Tick:
        """What a person sees beside a message of their own."""

        def operation(connection: Connection) -> Tick:
            state, conversation, seq = connection.execute(
                "SELECT state, conversation, seq FROM outgoing WHERE id = ?", (local_id,)
            ).fetchone()
            if state != SendState.ACCEPTED:
                return Tick.WAITING
            tally = tally_of(connection, local_id)
            if tally is not None:
                return tally.tick
            row = connection.execute(_RECEIPT, (conversation, conversation)).fetchone()
            return Tick.SENT if row is None else receipt_of(row).tick(seq)

        return await self._database.run(operation)

    async def conversations(self, own_user_id: bytes) -> list[Conversation]:
        """All conversations that hold something."""
        rows = await self._database.run(
            lambda c: c.execute(_CONVERSATIONS, (own_user_id,)).fetchall()
        )
        return [Conversation(*row) for row in rows]

    async def alarms(self) -> list[Alarm]:
        """Every place that two messages claimed."""
        rows = await self._database.run(lambda c: c.execute(_ALARMS).fetchall())
        return [Alarm(*row) for row in rows]

    # Readings.

    async def mark_read(self, conversation: bytes, up_to_seq: int, *, is_told: bool) -> int:
        """Keep how far a person has read, as far as there is something; returns how far.

        `is_told`: the mesh is to be told; else this stays here.
        """

        def operation(connection: Connection) -> int:
            row = connection.execute(_GREATEST_SEQ, (conversation, up_to_seq)).fetchone()
            seq = int(row[0] or 0)
            if seq:
                connection.execute(_READ, (conversation, seq, 0 if is_told else seq))
            return seq

        return await self._database.run(operation)

    async def unrecorded_reads(self) -> list[tuple[bytes, int]]:
        """What the mesh has not yet recorded as read."""
        return await self._database.run(lambda c: c.execute(_UNRECORDED).fetchall())

    # Contacts.

    async def remember(self, user_id: bytes, handle: str) -> None:
        """This account has this handle."""
        await self._database.run(_many(_PUT_CONTACT, [(user_id, handle)]))

    async def user_named(self, handle: str) -> bytes | None:
        """The account that had this handle when it was looked up."""
        rows = await self._database.run(lambda c: c.execute(_CONTACT_NAMED, (handle,)).fetchall())
        return rows[0][0] if rows else None

    async def handle_of(self, user_id: bytes) -> str | None:
        """The handle under which the account was looked up."""
        rows = await self._database.run(lambda c: c.execute(_HANDLE_OF, (user_id,)).fetchall())
        return rows[0][0] if rows else None


def _many(statement: str, rows: Sequence[tuple[Any, ...]]) -> Callable[[Connection], None]:
    def operation(connection: Connection) -> None:
        connection.executemany(statement, rows)

    return operation


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
    row = connection.execute(_RECEIPT, key).fetchone()
    if row is not None:
        kept = receipt_of(row)
        delivered = SeqRanges([*kept.delivered, *delivered])
        read_up_to = max(read_up_to, kept.read_up_to)
        version = max(version, kept.version)
    connection.execute(_PUT_RECEIPT, (*key, version, packed(delivered), read_up_to))
