"""IdentityService on the wire: turns requests into calls of Accounts, and decides nothing."""

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import TokenMissing
from svc_message.identity.accounts import Access, Accounts
from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc

# The gateway adds them for a caller whose token it has verified, and drops a client's own.
_CALLER = ("whimbrel-user-id", "whimbrel-device-id")


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Serves IdentityService to the gateways."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def Register(
        self, request: identity_pb2.RegisterRequest, context: Any
    ) -> identity_pb2.RegisterResponse:
        access = await self._accounts.register(
            request.handle,
            request.device_public_key,
            signed_at=_milliseconds(request.signed_at),
            signature=request.signature,
        )
        return identity_pb2.RegisterResponse(
            user_id=access.user_id,
            device_id=access.device_id,
            access_token=access.token,
            expires_at=_timestamp(access),
        )

    async def Refresh(
        self, request: identity_pb2.RefreshRequest, context: Any
    ) -> identity_pb2.RefreshResponse:
        access = await self._accounts.refresh(
            request.user_id,
            request.device_id,
            signed_at=_milliseconds(request.signed_at),
            signature=request.signature,
        )
        return identity_pb2.RefreshResponse(
            access_token=access.token, expires_at=_timestamp(access)
        )

    async def LookUp(
        self, request: identity_pb2.LookUpRequest, context: Any
    ) -> identity_pb2.LookUpResponse:
        _demand_caller(context)
        return identity_pb2.LookUpResponse(user_id=await self._accounts.look_up(request.handle))


def _demand_caller(context: Any) -> None:
    known = dict(context.invocation_metadata() or ())
    if not all(known.get(key) for key in _CALLER):
        raise TokenMissing("a token is needed")


def _milliseconds(moment: Timestamp) -> int:
    # By hand: a timestamp out of range is stale, not an error of ours.
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def _timestamp(access: Access) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(access.expires_at)
    return moment
