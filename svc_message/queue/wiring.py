"""The parts of domain events, wired to each other."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from mesh.tasks import periodically
from mesh.telemetry import Telemetry
from svc_message.queue.keeping import Keeping
from svc_message.queue.outbox import EventLog
from svc_message.queue.servicer import EventServicer
from svc_message.queue.settings import EventSettings
from svc_message.shards.directory import Shards

_SWEEP = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class QueueParts:
    """What serves, and what works behind it."""

    servicer: EventServicer
    keeping: Keeping

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                periodically(self.keeping.round, _SWEEP, name="events"), name="events"
            )


def build_queue(settings: EventSettings, shards: Shards, telemetry: Telemetry) -> QueueParts:
    """Wire them."""
    events = EventLog(shards)
    return QueueParts(
        EventServicer(events, readers=settings.readers, is_on=settings.is_on),
        Keeping(
            events,
            keep=settings.keep,
            keep_done=settings.keep_read,
            most=settings.most,
            telemetry=telemetry,
        ),
    )


def session_variables(settings: EventSettings) -> dict[str, str]:
    """What each session of the service says to the triggers of sql/0018_events.sql."""
    return {"whimbrel.events": "on"} if settings.is_on else {}
