"""What a device keeps: messages, its own sends, receipts, readings; all SQL is here.

Each method is one transaction, committed when it returns. It knows no stream and no time.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from whimbrel_client.applying import Applied, Changes, apply
from whimbrel_client.channels.store import ChannelStore
from whimbrel_client.database import Database
from whimbrel_client.groups.store import GroupStore, tally_of
from whimbrel_client.held import Held
from whimbrel_client.history.store import HistoryStore
from whimbrel_client.kept import Queued, queue_own
from whimbrel_client.key_store import KeyStore
from whimbrel_client.media.uploads import UploadStore
from whimbrel_client.model import (
    Alarm,
    Conversation,
    Message,
    OutgoingMessage,
    Receipt,
    SendState,
    Tick,
)
from whimbrel_client.mute_store import MuteStore
from whimbrel_client.rows import RECEIPT, message_of, outgoing_of, receipt_of
from whimbrel_client.schema import MIGRATIONS
from whimbrel_client.sealing import Sealed, Sealing
from whimbrel_client.sessions import NOBODY, DeviceId
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.store_key import BY_ITSELF, Protection
from whimbrel_client.sync import Sending, Wanted

_MESSAGES = """
SELECT cursor, conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext,
    content, mark
FROM message WHERE cursor > ?1 AND (?3 IS NULL OR conversation = ?3) AND state <> 2
ORDER BY cursor LIMIT ?2
"""
_LAST_WORDS = """
SELECT cursor, conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext,
    content, mark
FROM message WHERE conversation = ?1 AND sender = ?1 AND state <> 2 AND mark <> 2
ORDER BY cursor DESC LIMIT ?2
"""
_WAITING = "SELECT conversation, MAX(id) FROM outgoing WHERE state = 0 GROUP BY conversation"
_LOAD_OUTGOING = """
SELECT id, conversation, client_message_id, send, first_tried_at FROM outgoing
WHERE conversation = ? AND id > ? AND id <= ? AND state = 0 ORDER BY id LIMIT ?
"""
_MARK_TRIED = "UPDATE outgoing SET first_tried_at = ? WHERE id = ? AND first_tried_at IS NULL"
_GIVE_UP = "UPDATE outgoing SET state = 3 WHERE id = ? AND state = 0"
_OUTGOING = """
SELECT id, conversation, client_message_id, content, mark,
    state, message_id, seq, accepted_at, reason
FROM outgoing WHERE id > ? AND is_shown ORDER BY id LIMIT ?
"""
_RECEIPTS = """
SELECT version, conversation, peer, delivered, read_up_to FROM receipt
WHERE version > ? ORDER BY version LIMIT ?
"""
_RECEIPT_VERSION = "SELECT COALESCE(MAX(version), 0) FROM receipt"
_READ = """
INSERT INTO reading (conversation, up_to_seq, recorded_up_to) VALUES (?1, ?2, ?3)
ON CONFLICT (conversation) DO UPDATE
SET up_to_seq = MAX(up_to_seq, ?2), recorded_up_to = MAX(recorded_up_to, ?3)
"""
_UNRECORDED = "SELECT conversation, up_to_seq FROM reading WHERE up_to_seq > recorded_up_to"
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
        return await self._database.run(lambda c: apply(c, changes, self._own, self._held))

    # What the application reads.

    async def messages(
        self, after: int, *, limit: int, conversation: bytes | None = None
    ) -> list[Message]:
        """Received messages above the cursor, in local order."""
        wanted = (after, limit, conversation)
        rows = await self._database.run(lambda c: c.execute(_MESSAGES, wanted).fetchall())
        return [message_of(row) for row in rows]

    async def last_of(self, user_id: bytes, limit: int) -> list[Message]:
        """The last messages that a person has sent to the direct chat, oldest first."""
        rows = await self._database.run(
            lambda c: c.execute(_LAST_WORDS, (user_id, limit)).fetchall()
        )
        return [message_of(row) for row in reversed(rows)]

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
            row = connection.execute(RECEIPT, (conversation, conversation)).fetchone()
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
