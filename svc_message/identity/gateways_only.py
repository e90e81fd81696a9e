"""Lets only gateways speak for people: an internal team calls as its own service account."""

import grpc

from mesh.errors import PermissionDenied
from mesh.interceptors import Continuation, Handler, refusal
from mesh.service_auth import caller

_FOR_PEOPLE = ("/whimbrel.identity.v1.", "/whimbrel.group.v1.")
_GATEWAY = "gateway"


class GatewaysOnly(grpc.aio.ServerInterceptor):
    """Refuses calls in a person's name that do not come by a gateway; stands behind the tokens."""

    def __init__(self) -> None:
        self._refusal = refusal(PermissionDenied("only gateways speak for people"))

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        if handler_call_details.method.startswith(_FOR_PEOPLE) and caller().service != _GATEWAY:
            return self._refusal
        return await continuation(handler_call_details)
