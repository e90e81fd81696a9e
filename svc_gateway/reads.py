"""What one device has read and the message service has not recorded yet."""

Peer = tuple[str, bytes]  # which arm of Read.conversation is set, and to what


class Reads:
    """The greatest seq of each conversation; one request a conversation is in flight at most."""

    __slots__ = ("_asked", "_wanted")

    def __init__(self) -> None:
        self._wanted: dict[Peer, int] = {}
        self._asked: dict[Peer, int] = {}

    def __len__(self) -> int:
        return len(self._wanted)

    def want(self, peer: Peer, up_to_seq: int) -> int | None:
        """Take a read; the seq to ask for now, if there is one."""
        if up_to_seq > self._wanted.get(peer, -1):
            self._wanted[peer] = up_to_seq
        return self.next(peer)

    def next(self, peer: Peer) -> int | None:
        """The seq to ask for now, if none is asked for yet."""
        wanted = self._wanted.get(peer)
        if wanted is None or peer in self._asked:
            return None
        self._asked[peer] = wanted
        return wanted

    def recorded(self, peer: Peer) -> int:
        """The read in flight is durable; returns its seq."""
        up_to_seq = self._asked.pop(peer)
        if self._wanted[peer] <= up_to_seq:
            del self._wanted[peer]
        return up_to_seq

    def refused(self, peer: Peer, *, is_final: bool) -> None:
        """The read in flight was not recorded; a final refusal forgets it."""
        asked = self._asked.pop(peer)
        if is_final and self._wanted[peer] <= asked:
            del self._wanted[peer]

    def waiting(self) -> list[Peer]:
        """The conversations with something to ask for."""
        return [peer for peer in self._wanted if peer not in self._asked]
