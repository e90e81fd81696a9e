"""The screen under Textual's pilot: what a person sees and does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC

from textual.pilot import Pilot
from textual.widgets import Input, Static

from whimbrel_cli.screen.app import ChatApp
from whimbrel_cli.screen.source import Talker
from whimbrel_cli.screen.widgets import BubbleRow, BubbleView, ChatList
from whimbrel_client import ClientError

_SECONDS = 20


class Screen:
    """What a person sees and does."""

    def __init__(self, app: ChatApp, pilot: Pilot[ClientError]) -> None:
        self.app = app
        self.pilot = pilot

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once it is so on the screen."""
        async with asyncio.timeout(_SECONDS):
            while not is_so():
                await self.pilot.pause(0.01)

    async def write(self, words: str) -> None:
        self.app.query_one("#words", Input).value = words
        await self.pilot.press("enter")

    @property
    def bubbles(self) -> list[tuple[bool, str, str]]:
        """Whether it is an own one, what it says, what stands under it."""
        return [
            (row.has_class("own"), str(row.view.content), row.view.border_subtitle or "")
            for row in self.app.screen_stack[0].query(BubbleRow)
        ]

    @property
    def lines(self) -> list[str]:
        """The list of conversations."""
        return [str(line.label.content) for line in self.app.screen_stack[0].query(ChatList.Line)]

    def shown(self, selector: str) -> str:
        return str(self.app.screen.query_one(selector, Static).content)

    def says(self, words: str) -> bool:
        return any(words in text for _, text, _ in self.bubbles)

    async def focus(self, words: str) -> None:
        await self.until(lambda: self.says(words))
        views = self.app.query(BubbleView)
        next(view for view in views if words in str(view.content)).focus()
        await self.pilot.pause()


@asynccontextmanager
async def screen_of(client: Talker, peer: bytes | None = None) -> AsyncIterator[Screen]:
    """The screen of the client, open at the conversation with the peer."""
    app = ChatApp(client, peer=peer, zone=UTC)
    async with app.run_test(size=(100, 40)) as pilot:
        yield Screen(app, pilot)
