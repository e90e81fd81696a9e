"""ChannelService: proto to model and back; decides nothing."""

from typing import Any

import grpc

from mesh.caller import caller_of
from svc_message.channels.channels import ChannelRules
from svc_message.channels.model import MOST_A_PAGE
from svc_message.channels.wire import (
    fill_channel,
    fill_post,
    read_change,
    read_key_version,
    read_retention,
)
from svc_message.to_gateway import fill_time
from whimbrel.channel.v1 import channel_pb2, channel_pb2_grpc

_MOST_SEQ = 2**63 - 1


class ChannelServicer(channel_pb2_grpc.ChannelServiceServicer):
    """What devices ask about channels, by their gateways."""

    def __init__(self, channels: ChannelRules) -> None:
        self._channels = channels

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve there."""
        channel_pb2_grpc.add_ChannelServiceServicer_to_server(self, server)

    async def CreateChannel(
        self, request: channel_pb2.CreateChannelRequest, context: Any
    ) -> channel_pb2.CreateChannelResponse:
        channel = await self._channels.create(
            caller_of(context),
            request.creation_id,
            request.attributes,
            read_retention(request),
            link_hash=request.link_key_hash,
            sealed_key=request.sealed_key,
        )
        response = channel_pb2.CreateChannelResponse()
        fill_channel(response.channel, channel)
        return response

    async def ChangeChannel(
        self, request: channel_pb2.ChangeChannelRequest, context: Any
    ) -> channel_pb2.ChangeChannelResponse:
        channel = await self._channels.change(
            caller_of(context), request.channel_id, read_change(request)
        )
        response = channel_pb2.ChangeChannelResponse()
        fill_channel(response.channel, channel)
        return response

    async def GetChannel(
        self, request: channel_pb2.GetChannelRequest, context: Any
    ) -> channel_pb2.GetChannelResponse:
        channel, admin_ids = await self._channels.get(caller_of(context), request.channel_id)
        response = channel_pb2.GetChannelResponse(admin_ids=admin_ids)
        fill_channel(response.channel, channel)
        return response

    async def DeleteChannel(
        self, request: channel_pb2.DeleteChannelRequest, context: Any
    ) -> channel_pb2.DeleteChannelResponse:
        await self._channels.delete(caller_of(context), request.channel_id)
        return channel_pb2.DeleteChannelResponse()

    async def Subscribe(
        self, request: channel_pb2.SubscribeRequest, context: Any
    ) -> channel_pb2.SubscribeResponse:
        channel = await self._channels.subscribe(
            caller_of(context),
            request.channel_id,
            request.link_key,
            request.sealed_key,
        )
        response = channel_pb2.SubscribeResponse()
        fill_channel(response.channel, channel)
        return response

    async def Unsubscribe(
        self, request: channel_pb2.UnsubscribeRequest, context: Any
    ) -> channel_pb2.UnsubscribeResponse:
        await self._channels.unsubscribe(caller_of(context), request.channel_id)
        return channel_pb2.UnsubscribeResponse()

    async def ListSubscriptions(
        self, request: channel_pb2.ListSubscriptionsRequest, context: Any
    ) -> channel_pb2.ListSubscriptionsResponse:
        response = channel_pb2.ListSubscriptionsResponse()
        for one in await self._channels.subscriptions(caller_of(context)):
            response.subscriptions.add(
                channel_id=one.channel_id, cursor=one.cursor, sealed_key=one.sealed_key
            )
        return response

    async def CreatePost(
        self, request: channel_pb2.CreatePostRequest, context: Any
    ) -> channel_pb2.CreatePostResponse:
        seq, posted_at = await self._channels.post(
            caller_of(context),
            request.channel_id,
            request.post_id,
            read_key_version(request.key_version),
            request.ciphertext,
        )
        response = channel_pb2.CreatePostResponse(seq=seq)
        fill_time(response.posted_at, posted_at)
        return response

    async def ListPosts(
        self, request: channel_pb2.ListPostsRequest, context: Any
    ) -> channel_pb2.ListPostsResponse:
        page = await self._channels.posts(
            caller_of(context),
            request.channel_id,
            min(request.after_seq, _MOST_SEQ),
            request.limit or MOST_A_PAGE,
        )
        response = channel_pb2.ListPostsResponse(
            head_seq=page.standing.head_seq, oldest_seq=page.standing.oldest_seq
        )
        for post in page.posts:
            fill_post(response.posts.add(), post)
        return response

    async def SetCursor(
        self, request: channel_pb2.SetCursorRequest, context: Any
    ) -> channel_pb2.SetCursorResponse:
        cursor = await self._channels.set_cursor(
            caller_of(context), request.channel_id, request.cursor
        )
        return channel_pb2.SetCursorResponse(cursor=cursor)
