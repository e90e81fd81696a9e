"""Reads what the SDK tells into the chats, and says to the SDK what the person does."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from whimbrel_cli.screen.chats import Chat, Chats
from whimbrel_cli.screen.source import Talker
from whimbrel_client import ClientClosed, NotSent, OutgoingMessage
from whimbrel_client.groups.model import Group

if TYPE_CHECKING:
    from whimbrel.content.v1.content_pb2 import Content

_MOST_TALLIED = 100


class Feed:
    """Keeps the chats as the SDK's store is, for as long as `run` runs."""

    def __init__(self, client: Talker, chats: Chats, *, on_change: Callable[[], None]) -> None:
        self._client = client
        self._chats = chats
        self._on_change = on_change
        # Own messages whose end is awaited, by conversation: they end in order.
        self._unsettled: dict[bytes, deque[OutgoingMessage]] = {}
        # What was said to groups last: it is this that the mesh counts.
        self._to_groups: dict[bytes, deque[OutgoingMessage]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Follow the client until it ends; raises what ended it."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._load()
            tasks.create_task(self._follow_groups(), name="follow-groups")
            tasks.create_task(self._follow_messages(), name="follow-messages")
            tasks.create_task(self._follow_receipts(), name="follow-receipts")
            tasks.create_task(self._follow_identities(), name="follow-identities")
            tasks.create_task(self._follow_history(), name="follow-history")
            tasks.create_task(self._follow_mutes(), name="follow-mutes")

    async def say(self, peer: bytes, what: "str | Content") -> None:
        """Send; on return it is in the SDK's store and on the screen."""
        self._said(await self._client.send(peer, what))
        self._on_change()

    async def read(self, chat: Chat) -> None:
        """The person has seen all of the conversation."""
        if chat.last_seq > chat.read_up_to:
            chat.read_up_to = chat.last_seq
            await self._client.mark_read(chat.peer, chat.last_seq)

    async def warned(self, chat: Chat) -> None:
        """The person sees that the other has another identity; it is told once."""
        change = chat.new_identity
        if change is not None and not change.is_seen:
            chat.new_identity = replace(change, is_seen=True)
            await self._client.saw_identity_change(change)

    async def chat_with(self, peer: bytes) -> Chat:
        """The conversation, with the other's handle if it is known."""
        is_new = peer not in self._chats
        chat = self._chats[peer]
        if is_new:
            chat.handle = await self._client.handle_of(peer)
            self._on_change()
        return chat

    async def _load(self) -> None:
        for kept in await self._client.conversations():
            chat = await self.chat_with(kept.conversation)
            chat.read_up_to = kept.read_up_to
        for group in await self._client.groups.all():
            await self._group(group)
        page = await self._client.outgoing()
        while page:
            for message in page:
                self._said(message)
            page = await self._client.outgoing(after=page[-1].local_id)
        self._on_change()

    async def _follow_messages(self) -> None:
        async for message in self._client.messages():
            chat = await self.chat_with(message.conversation)
            if chat.is_group:
                await self._learn_name(chat, message.sender)
            chat.received(message)
            self._on_change()

    async def _follow_groups(self) -> None:
        async for groups in self._client.groups.follow():
            for group in groups:
                await self._group(group)
            self._on_change()

    async def _group(self, group: Group) -> None:
        chat = await self.chat_with(group.group_id)
        chat.is_group, chat.handle = True, group.name or None

    async def _learn_name(self, chat: Chat, user_id: bytes) -> None:
        if user_id not in chat.names:
            chat.names[user_id] = await self._client.handle_of(user_id) or ""

    async def _tally(self, chat: Chat) -> None:
        """How many members have what was said last."""
        for message in self._to_groups.get(chat.peer, ()):
            tally = await self._client.groups.tally(message)
            if tally is not None:
                chat.tallied(message, tally)

    async def _follow_receipts(self) -> None:
        async for receipt in self._client.receipts():
            if receipt.peer == receipt.conversation:
                chat = await self.chat_with(receipt.conversation)
                if chat.is_group:
                    await self._tally(chat)
                else:
                    chat.receipted(receipt)
                self._on_change()

    async def _follow_identities(self) -> None:
        async for change in self._client.identity_changes():
            if not change.is_seen:
                (await self.chat_with(change.user_id)).new_identity = change
                self._on_change()

    async def _follow_history(self) -> None:
        async for message in self._client.history.messages():
            (await self.chat_with(message.conversation)).received(message)
            self._on_change()

    async def _follow_mutes(self) -> None:
        async for muted in self._client.mutes.follow():
            for conversation in muted:
                await self.chat_with(conversation)
            for chat in self._chats.in_order:
                chat.muted_until = muted.get(chat.peer)
            self._on_change()

    def _said(self, message: OutgoingMessage) -> None:
        chat = self._chats[message.conversation]
        chat.said(message)
        if chat.is_group:
            said = self._to_groups.setdefault(chat.peer, deque(maxlen=_MOST_TALLIED))
            said.append(message)
        if message.outcome is not None or self._tasks is None:
            return
        unsettled = self._unsettled.setdefault(message.conversation, deque())
        unsettled.append(message)
        if len(unsettled) == 1:
            self._tasks.create_task(self._settle(unsettled), name="await-accepted")

    async def _settle(self, unsettled: deque[OutgoingMessage]) -> None:
        while unsettled:
            message = unsettled[0]
            try:
                await self._client.accepted(message)
            except NotSent:
                pass  # the outcome says so too
            except ClientClosed:
                return
            chat = self._chats[message.conversation]
            chat.settled(message)
            if chat.is_group:
                await self._tally(chat)
            unsettled.popleft()
            self._on_change()
