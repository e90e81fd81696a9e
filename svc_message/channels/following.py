"""What gateways ask on their Attach streams: who follows which channels, and where those stand."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from svc_message.channels.store import ChannelStore
from svc_message.channels.wire import fill_heads
from svc_message.link import EVENT_BYTES, GatewayLink
from whimbrel.message.v1 import attach_pb2

_MOST_ASKED = 500


class Following:
    """Answers gateways; what cannot be read is left out, and asked again by them later."""

    def __init__(self, store: ChannelStore) -> None:
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def subscriptions(
        self, link: GatewayLink, message: attach_pb2.FetchSubscriptions, request_id: int
    ) -> None:
        """Answer with the channels of accounts."""
        self._begin(self._answer_subscriptions(link, message.user_ids[:_MOST_ASKED], request_id))

    def heads(
        self, link: GatewayLink, message: attach_pb2.FetchChannelHeads, request_id: int
    ) -> None:
        """Answer with the heads of channels."""
        self._begin(self._answer_heads(link, message.channel_ids[:_MOST_ASKED], request_id))

    async def _answer_subscriptions(
        self, link: GatewayLink, user_ids: Sequence[bytes], request_id: int
    ) -> None:
        found = await self._store.followed_by(user_ids)
        size = sum(EVENT_BYTES + 20 * len(channels) for channels in found.values())
        answer = link.event(request_id, EVENT_BYTES + size).subscriptions
        answer.SetInParent()
        for user_id, channel_ids in found.items():
            answer.lists.add(user_id=user_id, channel_ids=channel_ids)

    async def _answer_heads(
        self, link: GatewayLink, channel_ids: Sequence[bytes], request_id: int
    ) -> None:
        found = await self._store.heads(channel_ids)
        fill_heads(link.event(request_id, EVENT_BYTES * (1 + len(found))).channel_heads, found)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="following")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
