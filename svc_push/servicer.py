"""PushService on the wire: reads requests, says who calls, writes answers; decides nothing."""

import asyncio
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from mesh.bounds import checker_of
from mesh.caller import caller_of
from mesh.streams import next_request
from svc_push.jobs import Connected, Jobs, Wake
from svc_push.model import Device, ProviderOff, Subscription
from svc_push.tokens import Tokens
from whimbrel.push.v1 import push_pb2, push_pb2_grpc

_NEWS = checker_of(push_pb2.News.DESCRIPTOR)


class PushServicer(push_pb2_grpc.PushServiceServicer):
    """Answers devices, by gateways, and message instances."""

    def __init__(self, tokens: Tokens, jobs: Jobs, vapid_key: bytes | None) -> None:
        self._tokens = tokens
        self._jobs = jobs
        self._vapid_key = vapid_key
        self._ending = asyncio.Event()

    def end_streams(self) -> None:
        """Let the message instances go elsewhere."""
        self._ending.set()

    async def SetToken(
        self, request: push_pb2.SetTokenRequest, context: Any
    ) -> push_pb2.SetTokenResponse:
        device = _calling(context)
        match request.WhichOneof("token"):
            case "apns":
                await self._tokens.set_apns(device, request.apns)
            case "fcm":
                await self._tokens.set_fcm(device, request.fcm)
            case _:
                told = request.web_push
                subscription = Subscription(told.endpoint, told.p256dh, told.auth)
                await self._tokens.set_web_push(device, subscription)
        return push_pb2.SetTokenResponse()

    async def RemoveToken(
        self, request: push_pb2.RemoveTokenRequest, context: Any
    ) -> push_pb2.RemoveTokenResponse:
        await self._tokens.remove(_calling(context))
        return push_pb2.RemoveTokenResponse()

    async def GetVapidKey(
        self, request: push_pb2.GetVapidKeyRequest, context: Any
    ) -> push_pb2.GetVapidKeyResponse:
        if self._vapid_key is None:
            raise ProviderOff("there is no Web Push", metadata={"provider": "WEB_PUSH"})
        return push_pb2.GetVapidKeyResponse(public_key=self._vapid_key)

    async def Attach(self, _requests: Any, context: Any) -> None:  # type: ignore[override]
        while (request := await next_request(context, self._ending)) is not None:
            taken, refused = _NEWS.parted(request.news)
            await self._take(taken)
            await context.write(
                push_pb2.AttachResponse(
                    done=[news.id for news in request.news],
                    refused=[
                        push_pb2.RefusedNews(id=news.id, field=wrong.field, allowed=wrong.allowed)
                        for news, wrong in refused
                    ],
                )
            )

    async def _take(self, news: Iterable[push_pb2.News]) -> None:
        """Make all of it durable, each device's in its order."""
        for kind, told in _runs(news):
            if kind == "wake":
                await self._jobs.wake([_wake(one) for one in told])
            elif kind == "connected":
                await self._jobs.connected(
                    [Connected(_device(one), one.connected.epoch) for one in told]
                )
            elif kind == "unlinked":
                for one in told:
                    await self._tokens.remove(
                        _device(one), set_before=one.unlinked.at.ToDatetime(UTC)
                    )


def _calling(context: Any) -> Device:
    caller = caller_of(context)
    return Device(caller.user_id, caller.device_id)


def _device(news: push_pb2.News) -> Device:
    return Device(news.user_id, news.device_id)


def _wake(news: push_pb2.News) -> Wake:
    told = news.wake
    return Wake(_device(news), told.epoch, told.acked_pos, told.urgent)


def _runs(news: Iterable[push_pb2.News]) -> list[tuple[str, list[push_pb2.News]]]:
    """Neighbours of one kind together."""
    runs: list[tuple[str, list[push_pb2.News]]] = []
    for one in news:
        kind = one.WhichOneof("news") or ""
        if not runs or runs[-1][0] != kind:
            runs.append((kind, []))
        runs[-1][1].append(one)
    return runs
