"""Which sessions have which chats open, and what was last said of the people in them; pure."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from svc_gateway.reads import Peer

S = TypeVar("S")


class Viewing(NamedTuple):
    """A chat, and a person who has it open in one session or more."""

    peer: Peer
    watcher_id: bytes


class Watching(Generic[S]):
    """The open chats by session, and the sessions by chat."""

    def __init__(self) -> None:
        self._by_session: defaultdict[S, set[Peer]] = defaultdict(set)
        self._sessions: defaultdict[Viewing, set[S]] = defaultdict(set)
        self._told: dict[Viewing, bytes] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many chats are open, session by session."""
        return self._count

    def __iter__(self) -> Iterator[Viewing]:
        return iter([*self._sessions])

    def of(self, session: S) -> set[Peer]:
        """The chats that are open in a session."""
        return set(self._by_session.get(session, ()))

    def sessions(self, viewing: Viewing) -> list[S]:
        """Those in which the person has the chat open."""
        return [*self._sessions.get(viewing, ())]

    def told(self, viewing: Viewing) -> bytes | None:
        """What the person was last told of the other."""
        return self._told.get(viewing)

    def tell(self, viewing: Viewing, frame: bytes) -> bool:
        """Remember it; False if it is nothing new, or the chat is not open any more."""
        if viewing not in self._sessions or self._told.get(viewing) == frame:
            return False
        self._told[viewing] = frame
        return True

    def add(self, session: S, viewing: Viewing) -> bool:
        """A session opens a chat; True if it is the person's first to do so."""
        if viewing.peer in self._by_session[session]:
            return False
        self._by_session[session].add(viewing.peer)
        self._sessions[viewing].add(session)
        self._count += 1
        return len(self._sessions[viewing]) == 1

    def remove(self, session: S, viewing: Viewing) -> bool:
        """A session closes a chat; True if it was the person's last to have it open."""
        if viewing.peer not in self._by_session.get(session, ()):
            return False
        self._by_session[session].discard(viewing.peer)
        if not self._by_session[session]:
            del self._by_session[session]
        self._sessions[viewing].discard(session)
        self._count -= 1
        if self._sessions[viewing]:
            return False
        del self._sessions[viewing]
        self._told.pop(viewing, None)
        return True
