"""The rules of receiving, sans-IO: what is acked, and what the mesh must record as read.

What is stored, with all before it, is acked; a hole in the positions is never acked.
"""


class Acks:
    """What of one stream's deliveries is stored, and what of that the mesh has been told."""

    def __init__(self) -> None:
        # Of the last delivery that was in its place; None: there was none.
        self.received_pos: int | None = None
        self._stored_pos = 0
        self._acked_pos = 0

    def receive(self, pos: int) -> bool:
        """Whether the delivery is the next one.

        The first of a stream may be any: what is before it was acked, or has expired.
        """
        if self.received_pos is not None and pos != self.received_pos + 1:
            return False
        self.received_pos = pos
        return True

    def stored(self, pos: int) -> None:
        """All that was received up to this position is committed."""
        self._stored_pos = max(self._stored_pos, pos)

    def take(self) -> int | None:
        """The position to ack now; None if the mesh knows all there is."""
        if self._stored_pos <= self._acked_pos:
            return None
        self._acked_pos = self._stored_pos
        return self._acked_pos


class Reads:
    """What the mesh must record as read: the newest of each conversation, one on its way."""

    def __init__(self) -> None:
        self._wanted: dict[bytes, int] = {}
        self._in_flight: dict[bytes, int] = {}

    def want(self, conversation: bytes, up_to_seq: int) -> None:
        """The conversation is read up to here."""
        if up_to_seq > self._wanted.get(conversation, 0):
            self._wanted[conversation] = up_to_seq

    def take(self) -> list[tuple[bytes, int]]:
        """What to write now: conversations, each up to a seq."""
        fresh = [item for item in self._wanted.items() if item[0] not in self._in_flight]
        self._in_flight.update(fresh)
        return fresh

    def recorded(self, conversation: bytes) -> int | None:
        """The read on its way is durable: up to which seq; None if none was on its way."""
        up_to_seq = self._in_flight.pop(conversation, None)
        if up_to_seq is not None and self._wanted.get(conversation, 0) <= up_to_seq:
            self._wanted.pop(conversation, None)
        return up_to_seq

    def stream_ended(self) -> None:
        """Nobody will answer what is on its way."""
        self._in_flight.clear()
