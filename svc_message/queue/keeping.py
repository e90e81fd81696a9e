"""Removes events that nobody needs any more, and, with an alarm, those that wait too long."""

from datetime import timedelta

import structlog

from mesh.metrics import EVENTS_DROPPED
from mesh.postgres import STORE_ERRORS
from mesh.telemetry import Telemetry
from svc_message.queue.outbox import EventLog

log = structlog.get_logger(__name__)

_AT_ONCE = 5_000


class Keeping:
    """One round over every shard; instances may do it at once."""

    def __init__(
        self,
        events: EventLog,
        *,
        keep: timedelta,
        keep_done: timedelta,
        most: int,
        telemetry: Telemetry,
    ) -> None:
        self._events = events
        self._bounds = (keep, keep_done, most, _AT_ONCE)
        self._dropped = telemetry.counter(EVENTS_DROPPED)

    async def round(self) -> None:
        """Sweep each shard that can be reached."""
        for shard, store in self._events.stores.items():
            unread, removed = 0, _AT_ONCE
            try:
                while removed == _AT_ONCE:
                    removed, missed = await store.forget(*self._bounds)
                    unread += missed
            except STORE_ERRORS as error:
                log.warning("sweep given up", shard=shard, error=type(error).__name__)
            if unread:
                log.error("events dropped that a group had yet to read", shard=shard, events=unread)
                self._dropped.add(unread, {"shard": shard})
