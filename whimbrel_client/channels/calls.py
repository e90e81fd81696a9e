"""Calls of ChannelService, at whichever gateway answers. All raise CallFailed and Unreachable."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from whimbrel.channel.v1 import channel_pb2, channel_pb2_grpc
from whimbrel_client.identity import CALL_SECONDS, IdentityCalls, authorization

Token = Callable[[], Awaitable[str]]


class ChannelCalls:
    """The service of channels, as this device uses it. Requests are built by who calls."""

    def __init__(self, calls: IdentityCalls, token: Token) -> None:
        self._calls = calls
        self._token = token

    async def create(self, request: channel_pb2.CreateChannelRequest) -> channel_pb2.Channel:
        """Make a channel."""
        channel: channel_pb2.Channel = (await self._call("CreateChannel", request)).channel
        return channel

    async def change(self, request: channel_pb2.ChangeChannelRequest) -> channel_pb2.Channel:
        """Change a channel."""
        channel: channel_pb2.Channel = (await self._call("ChangeChannel", request)).channel
        return channel

    async def get(self, channel_id: bytes) -> channel_pb2.Channel:
        """Read a channel."""
        request = channel_pb2.GetChannelRequest(channel_id=channel_id)
        channel: channel_pb2.Channel = (await self._call("GetChannel", request)).channel
        return channel

    async def delete(self, channel_id: bytes) -> None:
        """End a channel."""
        await self._call("DeleteChannel", channel_pb2.DeleteChannelRequest(channel_id=channel_id))

    async def subscribe(self, request: channel_pb2.SubscribeRequest) -> channel_pb2.Channel:
        """Follow a channel."""
        channel: channel_pb2.Channel = (await self._call("Subscribe", request)).channel
        return channel

    async def unsubscribe(self, channel_id: bytes) -> None:
        """Follow it no more."""
        await self._call("Unsubscribe", channel_pb2.UnsubscribeRequest(channel_id=channel_id))

    async def subscriptions(self) -> Sequence[channel_pb2.Subscription]:
        """All that the account follows."""
        answer = await self._call("ListSubscriptions", channel_pb2.ListSubscriptionsRequest())
        subscriptions: Sequence[channel_pb2.Subscription] = answer.subscriptions
        return subscriptions

    async def post(self, request: channel_pb2.CreatePostRequest) -> channel_pb2.CreatePostResponse:
        """Post."""
        answer: channel_pb2.CreatePostResponse = await self._call("CreatePost", request)
        return answer

    async def posts(self, channel_id: bytes, after_seq: int) -> channel_pb2.ListPostsResponse:
        """The next page of posts."""
        request = channel_pb2.ListPostsRequest(channel_id=channel_id, after_seq=after_seq)
        answer: channel_pb2.ListPostsResponse = await self._call("ListPosts", request)
        return answer

    async def set_cursor(self, channel_id: bytes, cursor: int) -> int:
        """Say how far the account has read; where the cursor stands."""
        request = channel_pb2.SetCursorRequest(channel_id=channel_id, cursor=cursor)
        stands: int = (await self._call("SetCursor", request)).cursor
        return stands

    async def _call(self, rpc: str, request: Any) -> Any:
        metadata = authorization(await self._token())

        async def call(channel: grpc.aio.Channel) -> Any:
            stub = channel_pb2_grpc.ChannelServiceStub(channel)
            return await getattr(stub, rpc)(request, timeout=CALL_SECONDS, metadata=metadata)

        return await self._calls.anywhere(call)
