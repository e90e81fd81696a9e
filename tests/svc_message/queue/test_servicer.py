"""EventService: who may call it, and what it asks of names and positions."""

import pytest

from mesh.errors import InvalidArgument, PermissionDenied
from mesh.ids import random_id
from svc_message.queue.model import ClaimLost
from svc_message.queue.servicer import EventServicer, EventsOff
from whimbrel.event.v1 import event_pb2

WRITE = "INSERT INTO domain_event (slot, kind, key_id, number) VALUES (7, 4, $1, $2)"


@pytest.fixture
def call_as(monkeypatch):
    """`call_as("billing")`: from now on that service calls."""

    def set_caller(service: str) -> None:
        monkeypatch.setattr("svc_message.queue.servicer.caller", lambda: service)

    return set_caller


@pytest.fixture
def servicer(events, call_as) -> EventServicer:
    call_as("billing")
    return EventServicer(events, readers=["billing", "audit"], is_on=True)


async def fetched(servicer, group="g", consumer="c") -> event_pb2.FetchResponse:
    request = event_pb2.FetchRequest(group=group, consumer=consumer, wait_milliseconds=10_000)
    return await servicer.Fetch(request, None)


async def ack(servicer, response, group="g", consumer="c") -> None:
    request = event_pb2.AckRequest(group=group, consumer=consumer, positions=response.positions)
    await servicer.Ack(request, None)


async def test_a_team_gets_its_events_until_it_acknowledges_them(servicer, shards, call_as):
    await shards.pool("shard-0").execute(WRITE, random_id(), 1)
    first = await fetched(servicer)
    again = await fetched(servicer)
    await ack(servicer, again)
    await shards.pool("shard-0").execute(WRITE, random_id(), 2)
    then = await fetched(servicer)
    call_as("audit")
    others = await fetched(servicer)

    def revisions(response):
        return [event.group_changed.revision for event in response.events]

    assert [revisions(one) for one in (first, again, then)] == [[1], [1], [2]]
    # Its group is another, whatever it calls it.
    assert revisions(others) == [1, 2]


async def test_who_lost_the_claim_cannot_acknowledge(servicer, shards, events):
    await shards.pool("shard-0").execute(WRITE, random_id(), 1)
    response = await fetched(servicer)
    await events.stores["shard-0"].release("billing/g", "c")
    await fetched(servicer, consumer="other")

    with pytest.raises(ClaimLost):
        await ack(servicer, response)


async def test_a_service_that_is_no_reader_is_refused(servicer, call_as):
    call_as("sales")

    with pytest.raises(PermissionDenied):
        await fetched(servicer)


async def test_a_mesh_without_events_says_so(events, call_as):
    call_as("billing")

    with pytest.raises(EventsOff):
        await fetched(EventServicer(events, readers=["billing"], is_on=False))


async def test_positions_on_no_shard_are_refused(servicer):
    response = event_pb2.FetchResponse(positions=[event_pb2.Position(shard="no", up_to=1)])

    with pytest.raises(InvalidArgument):
        await ack(servicer, response)
