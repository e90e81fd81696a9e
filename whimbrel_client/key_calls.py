"""Calls of the key server, at whichever gateway answers."""

from collections.abc import Awaitable, Callable

import grpc

from whimbrel.identity.v1 import keys_pb2, keys_pb2_grpc
from whimbrel_client.device_keys import Pools, upload_of
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization

Token = Callable[[], Awaitable[str]]


class KeyCalls:
    """The key server, as this device uses it. Everything raises CallFailed and Unreachable."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def upload(self, pools: Pools) -> None:
        """Replace the one-time keys that others may take."""
        request, metadata = upload_of(pools), authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            stub = keys_pb2_grpc.KeyServiceStub(channel)
            await stub.UploadKeys(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)

    async def left(self) -> int:
        """How many one-time keys are left, of the kind that has fewer."""
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> keys_pb2.CountKeysResponse:
            stub = keys_pb2_grpc.KeyServiceStub(channel)
            request = keys_pb2.CountKeysRequest()
            return await stub.CountKeys(request, timeout=CALL_SECONDS, metadata=metadata)

        counted = await self._calls.anywhere(call)
        return min(counted.one_time_prekeys, counted.one_time_kem_prekeys)

    async def fetch(self, user_id: bytes, device_id: int) -> keys_pb2.FetchKeysResponse:
        """Take what opens sessions to one device, or to all if it is 0."""
        request = keys_pb2.FetchKeysRequest(user_id=user_id, device_id=device_id)
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> keys_pb2.FetchKeysResponse:
            stub = keys_pb2_grpc.KeyServiceStub(channel)
            return await stub.FetchKeys(request, timeout=CALL_SECONDS, metadata=metadata)

        return await self._calls.anywhere(call)
