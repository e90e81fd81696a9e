"""Calls to the message service: what people have decided, and who is a member."""

from collections.abc import Sequence
from typing import Any

import grpc

from mesh.channels import Channels
from mesh.errors import Unavailable
from mesh.ids import random_id
from svc_presence.model import Terms, Viewing
from whimbrel.message.v1 import audience_pb2

_METHOD = "/whimbrel.message.v1.AudienceService/CheckAudience"
_SECONDS = 2.0


class MessagePeer:
    """The message service, whichever instance answers: it reads and changes nothing."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def check(self, viewings: Sequence[Viewing]) -> list[Terms]:
        """The terms of each, in order. Raises Unavailable."""
        request = audience_pb2.CheckAudienceRequest()
        for chat, watcher_id in viewings:
            if chat.is_group:
                request.memberships.add(group_id=chat.id, user_id=watcher_id)
            else:
                request.viewings.add(user_id=chat.id, viewer_id=watcher_id)
        response = await self._call(request)
        people = iter(response.viewings)
        groups = iter(response.memberships)
        return [
            _of_member(next(groups)) if chat.is_group else _of_person(next(people))
            for chat, _ in viewings
        ]

    async def _call(
        self, request: audience_pb2.CheckAudienceRequest
    ) -> audience_pb2.CheckAudienceResponse:
        channel = self._channels.pick(random_id())
        method: Any = channel.unary_unary(
            _METHOD,
            request_serializer=audience_pb2.CheckAudienceRequest.SerializeToString,
            response_deserializer=audience_pb2.CheckAudienceResponse.FromString,
        )
        try:
            response: audience_pb2.CheckAudienceResponse = await method(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            raise Unavailable("the message service did not answer") from error
        return response


def _of_person(terms: audience_pb2.ViewingTerms) -> Terms:
    return Terms(terms.visible, terms.unblocked, terms.last_seen_seconds)


def _of_member(is_member: bool) -> Terms:  # noqa: FBT001
    return Terms(is_visible=False, is_told_typing=is_member)
