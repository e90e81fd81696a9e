"""The knobs of domain events."""

from datetime import timedelta

from pydantic import PositiveInt

from mesh.settings import Section


class EventSettings(Section):
    """Whether domain events are written, who reads them, and how long they are kept."""

    is_on: bool = False
    """Write domain events, for internal teams."""
    readers: frozenset[str] = frozenset()
    """The services that may read them by EventService, as a JSON list."""
    keep: timedelta = timedelta(days=1)
    """How long an event waits for the consumer groups that have not read it; then it is dropped,
    with an alarm. A group that did not ask for so long is forgotten."""
    most: PositiveInt = 1_000_000
    """How many events of one shard are kept; the oldest are dropped, with an alarm."""
    keep_read: timedelta = timedelta(minutes=10)
    """How long an event stays that every group has read: a broker that has lost its data gets them
    again."""
