"""What the local store keeps of silent conversations; a transaction a call."""

from datetime import datetime

from whimbrel.content.v1.content_pb2 import Content
from whimbrel.content.v1.history_pb2 import Mute
from whimbrel_client.database import Database
from whimbrel_client.kept import add_outgoing, queued_of
from whimbrel_client.model import moment
from whimbrel_client.muting import take
from whimbrel_client.sessions import DeviceId, Sessions
from whimbrel_client.sqlcipher import Connection
from whimbrel_client.sync import Sending

_MUTED = "SELECT conversation, until FROM mute WHERE until > ?"


class MuteStore:
    """Which conversations are silent."""

    def __init__(self, database: Database, own: DeviceId) -> None:
        self._database = database
        self._own = own

    async def keep(self, decided: Mute) -> list[Sending]:
        """Keep what the person has decided, and tell the own devices; what was queued for them."""
        return await self._database.run(lambda c: self._keep(c, decided))

    async def muted(self, now_ms: int) -> dict[bytes, datetime]:
        """Until when each conversation that is silent now will be."""
        rows = await self._database.run(lambda c: c.execute(_MUTED, (now_ms,)).fetchall())
        return {conversation: moment(until) for conversation, until in rows}

    def _keep(self, connection: Connection, decided: Mute) -> list[Sending]:
        take(connection, decided)
        others = Sessions(connection).linked(self._own.user_id)
        if all(one.device_id == self._own.device_id for one in others):
            return []
        queued = queued_of(self._own.user_id, Content(mute=decided), is_shown=False)
        return [Sending(add_outgoing(connection, queued), *queued[:2])]
