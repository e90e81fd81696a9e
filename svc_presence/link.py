"""The way out to one gateway: only the latest of each watch, in as few frames as can be."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from svc_presence.model import Activity, Chat, Presence, Viewing
from svc_presence.to_gateway import fill_presence
from whimbrel.presence.v1 import presence_pb2, state_pb2

_MOST_TYPING = 10_000
_MOST_A_FRAME = 5_000  # of people who are told, in all events

Write = Callable[[presence_pb2.AttachResponse], Awaitable[Any]]


class GatewayLink:
    """What one gateway is still to be told. It is bounded by what is watched there."""

    def __init__(self, gateway_id: str) -> None:
        self.gateway_id = gateway_id
        self._presences: dict[Viewing, Presence] = {}
        self._typing: list[tuple[bytes, Activity, Viewing]] = []
        self._wake = asyncio.Event()

    def tell(self, viewing: Viewing, presence: Presence) -> None:
        """Tell a watcher how the person is; what was not written yet is replaced."""
        self._presences[viewing] = presence
        self._wake.set()

    def tell_typing(self, user_id: bytes, activity: Activity, viewing: Viewing) -> None:
        """Tell a watcher that somebody writes in the chat; dropped when too much waits."""
        if len(self._typing) < _MOST_TYPING:
            self._typing.append((user_id, activity, viewing))
            self._wake.set()

    async def write_to(self, write: Write) -> None:
        """Write whatever there is; ends by cancellation only."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._presences or self._typing:
                await write(self._take())

    def _take(self) -> presence_pb2.AttachResponse:
        frame = presence_pb2.AttachResponse()
        taken = [*self._presences.items()][:_MOST_A_FRAME]
        watchers: defaultdict[tuple[Chat, Presence], list[bytes]] = defaultdict(list)
        for viewing, presence in taken:
            del self._presences[viewing]
            watchers[viewing.chat, presence].append(viewing.watcher_id)
        for (chat, presence), watcher_ids in watchers.items():
            changed = frame.events.add().changed
            fill_presence(changed.presence, chat.id, presence)
            changed.watcher_ids.extend(watcher_ids)
        self._take_typing(frame)
        return frame

    def _take_typing(self, frame: presence_pb2.AttachResponse) -> None:
        taken, self._typing = self._typing[:_MOST_A_FRAME], self._typing[_MOST_A_FRAME:]
        event, last = presence_pb2.TypingPush(), None
        for user_id, activity, (chat, watcher_id) in taken:
            if last != (user_id, activity, chat):
                last = user_id, activity, chat
                event = frame.events.add().writing
                event.notice.user_id = user_id
                event.notice.group_id = chat.id if chat.is_group else b""
                event.notice.activity = state_pb2.Activity.ValueType(activity)
            event.watcher_ids.append(watcher_id)
