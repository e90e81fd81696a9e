"""Who watches whom, and what they were last told: a watch is where the watched person is."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from svc_presence.model import Activity, Chat, Presence, Terms, Viewing


class Link(Protocol):
    """The way to a gateway."""

    def tell(self, viewing: Viewing, presence: Presence) -> None: ...
    def tell_typing(self, user_id: bytes, activity: Activity, viewing: Viewing) -> None: ...


class Watch:
    """One chat that is open with one person, at one gateway."""

    __slots__ = ("link", "terms", "told", "viewing")

    def __init__(self, link: Link, viewing: Viewing) -> None:
        self.link = link
        self.viewing = viewing
        self.terms: Terms | None = None  # not known yet
        self.told: Presence | None = None

    def tell(self, presence: Presence) -> None:
        """Tell the watcher, unless that was the last thing it was told."""
        if presence != self.told:
            self.told = presence
            self.link.tell(self.viewing, presence)


class Watches:
    """All watches of this instance, by chat and by gateway."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_chat: defaultdict[Chat, dict[tuple[Link, bytes], Watch]] = defaultdict(dict)
        self._by_link: defaultdict[Link, set[Viewing]] = defaultdict(set)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Watch]:
        return iter([watch for watches in self._by_chat.values() for watch in watches.values()])

    @property
    def chats(self) -> Iterable[Chat]:
        """What is watched by anybody."""
        return self._by_chat.keys()

    def add(self, link: Link, viewing: Viewing) -> Watch | None:
        """The new watch; None if there is one already, or there are as many as there may be."""
        key = link, viewing.watcher_id
        if key in self._by_chat.get(viewing.chat, ()) or self._count >= self._most:
            return None
        watch = Watch(link, viewing)
        self._by_chat[viewing.chat][key] = watch
        self._by_link[link].add(viewing)
        self._count += 1
        return watch

    def remove(self, link: Link, viewing: Viewing) -> None:
        """End a watch, if there is one."""
        watches = self._by_chat.get(viewing.chat, {})
        if watches.pop((link, viewing.watcher_id), None) is None:
            return
        if not watches:
            del self._by_chat[viewing.chat]
        self._by_link[link].discard(viewing)
        self._count -= 1

    def close(self, link: Link) -> None:
        """All watches of a gateway end."""
        for viewing in [*self._by_link.pop(link, ())]:
            self.remove(link, viewing)
        self._by_link.pop(link, None)

    def of(self, chat: Chat) -> list[Watch]:
        """Those who watch a chat."""
        return [*self._by_chat.get(chat, {}).values()]

    def of_viewing(self, viewing: Viewing) -> list[Watch]:
        """The watches of one person on one chat, at whichever gateways."""
        return [watch for watch in self.of(viewing.chat) if watch.viewing == viewing]
