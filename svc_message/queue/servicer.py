"""EventService: proto to queue and back."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import grpc

from mesh.access import caller
from mesh.errors import InvalidArgument, PermissionDenied, WhimbrelError
from svc_message.queue.outbox import EventLog, PostgresQueue
from whimbrel.event.v1 import event_pb2, event_pb2_grpc

_MOST = 500
_LONGEST_WAIT = timedelta(seconds=20)


class EventsOff(WhimbrelError):
    """The mesh writes no domain events."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "EVENTS_OFF"


class EventServicer(event_pb2_grpc.EventServiceServicer):
    """Serves the services that the settings let read events."""

    def __init__(self, events: EventLog, *, readers: Collection[str], is_on: bool) -> None:
        self._events = events
        self._readers = frozenset(readers)
        self._is_on = is_on

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there."""
        event_pb2_grpc.add_EventServiceServicer_to_server(self, server)

    async def Fetch(self, request: event_pb2.FetchRequest, context: Any) -> event_pb2.FetchResponse:
        queue = PostgresQueue(self._events, *self._names(request))
        wait = min(timedelta(milliseconds=request.wait_milliseconds), _LONGEST_WAIT)
        entries = await queue.receive(min(request.max_events or _MOST, _MOST), within=wait)
        response = event_pb2.FetchResponse()
        for entry in entries:
            response.events.add().MergeFromString(entry.value)
        for shard, up_to in queue.positions.items():
            response.positions.add(shard=shard, up_to=up_to)
        return response

    async def Ack(self, request: event_pb2.AckRequest, context: Any) -> event_pb2.AckResponse:
        group, holder = self._names(request)
        positions = {position.shard: position.up_to for position in request.positions}
        if positions.keys() - self._events.stores.keys():
            raise InvalidArgument(
                "no such shard",
                metadata={"field": "positions", "allowed": "as fetched"},
            )
        await self._events.commit(group, holder, positions)
        return event_pb2.AckResponse()

    def _names(self, request: event_pb2.FetchRequest | event_pb2.AckRequest) -> tuple[str, str]:
        """The group, which is the calling service's own, and who holds in it."""
        service = caller()
        if service not in self._readers:
            raise PermissionDenied("this service is not one of those that read events")
        if not self._is_on:
            raise EventsOff("the mesh writes no domain events")
        return f"{service}/{request.group}", request.consumer
