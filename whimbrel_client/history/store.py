"""What the local store keeps of histories, as the rest of the SDK uses it; a transaction a call."""

import os

from whimbrel_client.database import Database
from whimbrel_client.history import imports, offers
from whimbrel_client.kept import add_outgoing, queued_of
from whimbrel_client.model import HistoryProgress, Message
from whimbrel_client.rows import message_of
from whimbrel_client.sessions import DeviceId
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

_TOKEN_BYTES = 16

_MOVED = """
SELECT cursor, conversation, seq, message_id, sender, sender_device, accepted_at, type, ciphertext,
    content, mark
FROM message WHERE cursor < MIN(?, 1) AND state <> 2 ORDER BY cursor DESC LIMIT ?
"""


class HistoryStore:
    """The history that this device offers, or gets."""

    def __init__(self, database: Database, own: DeviceId) -> None:
        self._database = database
        self._own = own

    async def offer(self, *, since_ms: int, now_ms: int) -> bytes:
        """Offer what was accepted since then; returns what to ask with."""
        token = os.urandom(_TOKEN_BYTES)
        await self._database.run(lambda c: offers.offer(c, token, since_ms=since_ms, now_ms=now_ms))
        return token

    async def withdraw(self, token: bytes) -> None:
        """The offer reached nobody."""
        await self._database.run(lambda c: offers.withdraw(c, token))

    async def revoked(self, device_id: int) -> None:
        """Offer nothing more to a device that is no more."""
        await self._database.run(lambda c: offers.revoked(c, device_id))

    async def count_open(self) -> int:
        """How many offers are not taken up, or not to the end."""
        return await self._database.run(offers.count_open)

    async def expect(self, own: DeviceId, token: bytes, *, now_ms: int) -> None:
        """This device was linked just now, and was offered a history."""
        await self._database.run(lambda c: imports.expect(c, own, token, now_ms=now_ms))

    async def linked_at(self) -> int | None:
        """When this device was linked, in ms; None: there is nothing to ask for."""
        return await self._database.run(imports.linked_at)

    async def ask(self) -> list[Sending]:
        """Ask for the next part; what was queued."""

        def operation(connection: Connection) -> list[Sending]:
            asking = imports.request(connection)
            if asking is None:
                return []
            queued = queued_of(self._own.user_id, asking, is_shown=False)
            local_id = add_outgoing(connection, queued)
            return [Sending(local_id, queued.conversation, queued.client_message_id)]

        return await self._database.run(operation)

    async def progress(self) -> HistoryProgress:
        """How much has come."""
        return await self._database.run(imports.progress)

    async def messages(self, before: int, *, limit: int) -> list[Message]:
        """What came from the primary, below the cursor, downwards."""
        rows = await self._database.run(lambda c: c.execute(_MOVED, (before, limit)).fetchall())
        return [message_of(row) for row in rows]
