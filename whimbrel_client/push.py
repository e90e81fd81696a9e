"""How this device wants to be woken: the token that its platform gave it, told to the mesh."""

from collections.abc import Awaitable, Callable

import grpc

from whimbrel.push.v1 import push_pb2, push_pb2_grpc
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization

Stub = push_pb2_grpc.PushServiceStub
Token = Callable[[], Awaitable[str]]


class Push:
    """The push service, as this device uses it. All raise CallFailed and Unreachable.

    To be told at each start of the application, and when the platform gives out another token. A
    wake-up says nothing but that there is something: the application connects and reads.
    """

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def by_apns(self, token: bytes) -> None:
        """Be woken by Apple's push service."""
        await self._set(push_pb2.SetTokenRequest(apns=token))

    async def by_fcm(self, token: str) -> None:
        """Be woken by Firebase Cloud Messaging."""
        await self._set(push_pb2.SetTokenRequest(fcm=token))

    async def by_web_push(self, endpoint: str, p256dh: bytes, auth: bytes) -> None:
        """Be woken by a Web Push server; UnifiedPush is one. Subscribe with `vapid_key`."""
        subscription = push_pb2.WebPushSubscription(endpoint=endpoint, p256dh=p256dh, auth=auth)
        await self._set(push_pb2.SetTokenRequest(web_push=subscription))

    async def off(self) -> None:
        """Be woken no more."""
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            request = push_pb2.RemoveTokenRequest()
            await Stub(channel).RemoveToken(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)

    async def vapid_key(self) -> bytes:
        """The mesh's public key, for subscriptions to Web Push."""
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> bytes:
            request = push_pb2.GetVapidKeyRequest()
            stub = Stub(channel)
            answer = await stub.GetVapidKey(request, timeout=CALL_SECONDS, metadata=metadata)
            return answer.public_key

        return await self._calls.anywhere(call)

    async def _set(self, request: push_pb2.SetTokenRequest) -> None:
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> None:
            await Stub(channel).SetToken(request, timeout=CALL_SECONDS, metadata=metadata)

        await self._calls.anywhere(call)
