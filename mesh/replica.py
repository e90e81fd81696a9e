"""The last known content of one part of a registry, kept by full reads and changes; pure."""

from collections.abc import Callable, Mapping

Entries = Mapping[str, bytes]
OnChange = Callable[[Entries], None]


class Replica:
    """Entries by key, and those who want to know when they change.

    An entry leaves when its deletion is told, or when it is missing from full reads that are
    `grace` seconds apart: a registry that comes back empty must not take everybody out, who will
    register again within that time.
    """

    def __init__(self, *, grace: float) -> None:
        self._grace = grace
        self._entries: dict[str, bytes] = {}
        self._missing_since: dict[str, float] = {}
        self._listeners: list[OnChange] = []
        self.version = 0

    @property
    def entries(self) -> Entries:
        """What is known now; a change makes a new mapping."""
        return self._entries

    @property
    def is_doubtful(self) -> bool:
        """Whether an entry is kept although the last full read did not show it."""
        return bool(self._missing_since)

    def on_change(self, listener: OnChange) -> None:
        """Call it now and whenever entries come, change or leave."""
        self._listeners.append(listener)
        listener(self._entries)

    def replace(self, read: Entries, now: float) -> None:
        """Take a full read."""
        kept = {}
        missing_since = {}
        for key in self._entries.keys() - read.keys():
            since = self._missing_since.get(key, now)
            if now - since < self._grace:
                kept[key], missing_since[key] = self._entries[key], since
        self._missing_since = missing_since
        self._become({**kept, **read})

    def apply(self, changes: Mapping[str, bytes | None]) -> None:
        """Take what has changed since; None is a deletion."""
        entries = dict(self._entries)
        for key, value in changes.items():
            self._missing_since.pop(key, None)
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        self._become(entries)

    def _become(self, entries: dict[str, bytes]) -> None:
        if entries == self._entries:
            return
        self._entries = entries
        self.version += 1
        self._tell(entries)

    def _tell(self, entries: Entries) -> None:
        # One listener's bug must not keep the news from the others.
        bugs = []
        for listener in self._listeners:
            try:
                listener(entries)
            except Exception as bug:  # noqa: BLE001
                bugs.append(bug)
        if bugs:
            raise ExceptionGroup("listeners failed", bugs)
