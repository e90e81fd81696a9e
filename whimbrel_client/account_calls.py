"""Calls that find other accounts, and that protect the own one."""

from collections.abc import Awaitable, Callable

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from whimbrel.identity.v1 import identity_pb2, identity_pb2_grpc
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization
from whimbrel_client.registering import lock_of

Stub = identity_pb2_grpc.IdentityServiceStub
Token = Callable[[], Awaitable[str]]


class AccountCalls:
    """What a device asks about accounts. Raises CallFailed and Unreachable."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def user_named(self, handle: str) -> bytes:
        """The account that has the handle. Raises HandleUnknown."""
        return await self._look_up(identity_pb2.LookUpRequest(handle=handle))

    async def user_at(self, number: str) -> bytes:
        """The account that has the number. Raises HandleUnknown."""
        return await self._look_up(identity_pb2.LookUpRequest(phone_number=number))

    async def set_registration_lock(self, pin: str) -> None:
        """Let the number be registered again with this PIN only; empty: without any."""
        metadata = authorization(await self._token())
        request = identity_pb2.SetRegistrationLockRequest(registration_lock=lock_of(pin))

        async def call(channel: grpc.aio.Channel) -> None:
            await Stub(channel).SetRegistrationLock(
                request, timeout=CALL_SECONDS, metadata=metadata
            )

        await self._calls.anywhere(call)

    async def set_mute(self, user_id: bytes, until: Timestamp | None) -> None:
        """Silence the pushes of a direct chat until then; None: not any more."""
        metadata = authorization(await self._token())
        request = identity_pb2.SetMuteRequest(user_id=user_id, until=until)

        async def call(channel: grpc.aio.Channel) -> None:
            await Stub(channel).SetMute(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)

    async def _look_up(self, request: identity_pb2.LookUpRequest) -> bytes:
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> bytes:
            found = await Stub(channel).LookUp(request, timeout=CALL_SECONDS, metadata=metadata)
            return found.user_id

        return await self._calls.anywhere(call)
