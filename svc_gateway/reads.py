"""What one device has read and the message service has not recorded yet."""


class Reads:
    """The greatest seq of each conversation; one request a conversation is in flight at most."""

    __slots__ = ("_asked", "_wanted")

    def __init__(self) -> None:
        self._wanted: dict[bytes, int] = {}
        self._asked: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._wanted)

    def want(self, peer_id: bytes, up_to_seq: int) -> int | None:
        """Take a read; the seq to ask for now, if there is one."""
        if up_to_seq > self._wanted.get(peer_id, -1):
            self._wanted[peer_id] = up_to_seq
        return self.next(peer_id)

    def next(self, peer_id: bytes) -> int | None:
        """The seq to ask for now, if none is asked for yet."""
        wanted = self._wanted.get(peer_id)
        if wanted is None or peer_id in self._asked:
            return None
        self._asked[peer_id] = wanted
        return wanted

    def recorded(self, peer_id: bytes) -> int:
        """The read in flight is durable; returns its seq."""
        up_to_seq = self._asked.pop(peer_id)
        if self._wanted[peer_id] <= up_to_seq:
            del self._wanted[peer_id]
        return up_to_seq

    def refused(self, peer_id: bytes, *, is_final: bool) -> None:
        """The read in flight was not recorded; a final refusal forgets it."""
        asked = self._asked.pop(peer_id)
        if is_final and self._wanted[peer_id] <= asked:
            del self._wanted[peer_id]

    def waiting(self) -> list[bytes]:
        """The conversations with something to ask for."""
        return [peer_id for peer_id in self._wanted if peer_id not in self._asked]
