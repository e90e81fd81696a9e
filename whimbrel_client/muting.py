"""What own devices tell each other of silent conversations, as it is kept."""

from whimbrel.content.v1.history_pb2 import Mute
from whimbrel_client.sqlcipher import Connection

_PUT = """
INSERT INTO mute (conversation, until, decided_at) VALUES (?, ?, ?)
ON CONFLICT (conversation) DO UPDATE SET until = excluded.until, decided_at = excluded.decided_at
WHERE excluded.decided_at > mute.decided_at
    OR (excluded.decided_at = mute.decided_at AND excluded.until > mute.until)
"""


def take(connection: Connection, decided: Mute) -> None:
    """Keep what was decided, unless something else was decided later."""
    until, decided_at = decided.until.ToMilliseconds(), decided.decided_at.ToMilliseconds()
    connection.execute(_PUT, (decided.conversation, until, decided_at))
