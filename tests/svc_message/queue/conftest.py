"""Shards whose sessions write domain events, and what is read of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from svc_message.queue.event_store import Event, EventStore
from svc_message.queue.outbox import EventLog
from tests.svc_message.groups.conftest import world  # noqa: F401  fixtures
from tests.svc_message.messaging.conftest import core, people  # noqa: F401  fixtures

MOST = 1000
LEASE = timedelta(seconds=10)
GROUP, READER = "team/group", "reader"


@pytest.fixture
def session_variables() -> dict[str, str]:
    return {"whimbrel.events": "on"}


@pytest.fixture
def events(shards) -> EventLog:
    return EventLog(shards)


async def read_safe(
    store: EventStore, group: str = GROUP, holder: str = READER, lease: timedelta = LEASE
) -> Sequence[Event] | None:
    """What the group has not committed, once nothing that is under way can come before it.

    A transaction of any database of the server holds it up. None while another consumer reads.
    """
    pool = store._pool
    last = await pool.fetchval("SELECT coalesce(max(entry_id), 0) FROM domain_event")
    async with asyncio.timeout(20):
        while True:
            read = await store.read(group, holder, lease, MOST)
            safe = await pool.fetchval("SELECT safe_to FROM event_group WHERE name = $1", group)
            if read is None or safe >= last:
                return read
            await asyncio.sleep(0.01)


async def read_all(events: EventLog) -> list[Event]:
    """What the group has not committed, of every shard."""
    read = [await read_safe(store) for store in events.stores.values()]
    return [event for events in read for event in events or ()]


async def told_of(events: EventLog, key: bytes) -> list[Event]:
    """What is told of a conversation or an account, without ids of rows and times."""
    return [
        replace(event, entry_id=0, happened_at=None)
        for event in await read_all(events)
        if event.key_id == key
    ]
