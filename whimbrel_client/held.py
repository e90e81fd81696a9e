"""Which seqs a device holds, for ever: what is checked before anything is stored."""

from whimbrel_client.ranges import SeqRanges
from whimbrel_client.sqlcipher import Connection

_HELD = "SELECT first, last FROM held WHERE conversation = ? ORDER BY first"
_DROP_RANGE = "DELETE FROM held WHERE conversation = ? AND first = ?"
_PUT_RANGE = """
INSERT INTO held (conversation, first, last) VALUES (?, ?, ?)
ON CONFLICT (conversation, first) DO UPDATE SET last = excluded.last
"""


class Held:
    """The seqs that are held, by conversation; a cache of the table, filled when it is asked."""

    def __init__(self) -> None:
        self._ranges: dict[bytes, SeqRanges] = {}
        # What the table does not have yet: the last of a range by its first; None: it is gone.
        self._unsaved: dict[tuple[bytes, int], int | None] = {}

    def forget(self) -> None:
        """The table went back: read it again."""
        self._ranges.clear()
        self._unsaved.clear()

    def add(self, connection: Connection, conversation: bytes, seq: int) -> bool:
        """Take the seq in; False if it is held already."""
        ranges = self._ranges.get(conversation)
        if ranges is None:
            ranges = SeqRanges(connection.execute(_HELD, (conversation,)))
            self._ranges[conversation] = ranges
        added = ranges.add(seq)
        if added is None:
            return False
        if added.swallowed_next:
            self._unsaved[conversation, seq + 1] = None
        self._unsaved[conversation, added.first] = added.last
        return True

    def save(self, connection: Connection) -> None:
        """Write what changed."""
        changes = self._unsaved.items()
        gone = [place for place, last in changes if last is None]
        kept = [(*place, last) for place, last in changes if last is not None]
        connection.executemany(_DROP_RANGE, gone)
        connection.executemany(_PUT_RANGE, kept)
        self._unsaved.clear()
