"""AudienceService on the wire: proto to model and back; decides nothing."""

from typing import Any

import grpc

from svc_message.identity.visibility import Visibility
from whimbrel.message.v1 import audience_pb2, audience_pb2_grpc


class AudienceServicer(audience_pb2_grpc.AudienceServiceServicer):
    """What other services ask about people's choices."""

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there."""
        audience_pb2_grpc.add_AudienceServiceServicer_to_server(self, server)

    async def CheckAudience(
        self, request: audience_pb2.CheckAudienceRequest, context: Any
    ) -> audience_pb2.CheckAudienceResponse:
        response = audience_pb2.CheckAudienceResponse()
        viewings = [(one.user_id, one.viewer_id) for one in request.viewings]
        for terms in await self._visibility.terms(viewings):
            response.viewings.add(
                visible=terms.is_visible,
                unblocked=terms.is_unblocked,
                last_seen_seconds=terms.last_seen_seconds,
            )
        memberships = [(one.group_id, one.user_id) for one in request.memberships]
        response.memberships.extend(await self._visibility.memberships(memberships))
        return response
