"""PresenceService: proto to model and back; decides nothing."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import structlog

from mesh.clock import Clock
from mesh.errors import InvalidArgument, Unavailable
from svc_presence.link import GatewayLink
from svc_presence.model import Activity, Chat, Presence, Terms, Viewing
from svc_presence.presence import Seen, is_fresh, shown
from svc_presence.store import RedisPresence, Unreachable
from svc_presence.to_gateway import fill_presence
from svc_presence.tracker import Tracker
from whimbrel.presence.v1 import presence_pb2, presence_pb2_grpc

log = structlog.get_logger(__name__)

_ACTIVITIES = frozenset(activity.value for activity in Activity)
_OF_TEAMS = Terms(is_visible=True, is_told_typing=False)


class Draining(Unavailable):
    """The instance is being taken down: say everything to the others."""

    reason = "SERVER_DRAINING"


class PresenceServicer(presence_pb2_grpc.PresenceServiceServicer):
    """Serves the gateways' streams and the internal teams' calls."""

    def __init__(
        self, tracker: Tracker, store: RedisPresence, *, offline_after: float, clock: Clock
    ) -> None:
        self._tracker = tracker
        self._store = store
        self._offline_after = offline_after
        self._clock = clock
        self._ending = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there."""
        presence_pb2_grpc.add_PresenceServiceServicer_to_server(self, server)

    def end_streams(self) -> None:
        """Let the gateways go elsewhere."""
        self._ending.set()

    async def Attach(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        frame = await context.read()
        if frame is grpc.aio.EOF or len(frame.events) != 1 or not frame.events[0].hello.instance_id:
            raise InvalidArgument("the first frame is one hello with an instance_id")
        link = GatewayLink(frame.events[0].hello.instance_id)
        log.info("gateway attached", gateway=link.gateway_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(link.write_to(context.write), name="attach-write")
                ending = tasks.create_task(self._end(), name="attach-end")
                await self._take_all(link, context)
                writing.cancel()
                ending.cancel()
        finally:
            self._tracker.closed(link)
            log.info("gateway detached", gateway=link.gateway_id)

    async def GetPresence(
        self, request: presence_pb2.GetPresenceRequest, context: Any
    ) -> presence_pb2.GetPresenceResponse:
        user_ids = request.user_ids
        try:
            known = await self._store.last(user_ids)
        except Unreachable as error:
            raise Unavailable("presence cannot be read now") from error
        response = presence_pb2.GetPresenceResponse()
        for user_id in user_ids:
            fill_presence(response.presences.add(), user_id, self._presence(known.get(user_id)))
        return response

    def _presence(self, seen: Seen | None) -> Presence:
        now = int(self._clock.now().timestamp())
        is_online = seen is not None and is_fresh(seen, now, self._offline_after)
        return shown(seen, _OF_TEAMS, is_online=is_online)

    async def _end(self) -> None:
        await self._ending.wait()
        raise Draining("the instance is being taken down")

    async def _take_all(self, link: GatewayLink, context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            for event in frame.events:
                self._take(link, event)

    def _take(self, link: GatewayLink, event: presence_pb2.GatewayEvent) -> None:
        match event.WhichOneof("event"):
            case "heartbeat":
                self._tracker.heard(link.gateway_id, event.heartbeat.user_ids)
            case "gone":
                self._tracker.gone(link.gateway_id, event.gone.user_ids)
            case "watch":
                for viewing in _viewings(event.watch):
                    self._tracker.watch(link, viewing)
            case "unwatch":
                for viewing in _viewings(event.unwatch):
                    self._tracker.unwatch(link, viewing)
            case "writing" if event.writing.activity in _ACTIVITIES:
                typing = event.writing
                peer = Chat(typing.group_id or typing.peer_id, bool(typing.group_id))
                self._tracker.typing(typing.user_id, peer, Activity(typing.activity))
            case _:
                pass  # newer than this instance


def _viewings(watch: presence_pb2.WatchChats) -> Iterator[Viewing]:
    for user_id in watch.user_ids:
        yield Viewing(Chat(user_id), watch.watcher_id)
    for group_id in watch.group_ids:
        yield Viewing(Chat(group_id, is_group=True), watch.watcher_id)
