"""The terminal client: puts the chats on the screen, and what the person does into the feed."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Footer, Input, Label, ListView

from whimbrel_cli.person import account_of
from whimbrel_cli.screen.bubble import Bubble
from whimbrel_cli.screen.chats import Chat, Chats
from whimbrel_cli.screen.feed import Feed
from whimbrel_cli.screen.life import Life
from whimbrel_cli.screen.panes import (
    DevicesPane,
    Found,
    MutePane,
    NamePane,
    SafetyPane,
    SearchPane,
    SignPane,
)
from whimbrel_cli.screen.source import Talker
from whimbrel_cli.screen.widgets import BubbleView, ChatList, Conversation
from whimbrel_client import ClientError
from whimbrel_client.mutes import FOR_EVER
from whimbrel_client.payload import Named, delete, edit, reaction, reply
from whimbrel_client.presence import Activity

if TYPE_CHECKING:
    from whimbrel.content.v1 import content_pb2

_DRAW_SECONDS = 0.03
_LOOK_SECONDS = 0.5
_MOST_FOUND = 50
_DOWNLOADS = Path("~/Downloads").expanduser()


class Target(NamedTuple):
    """A message that the next words are about."""

    bubble: Bubble
    make: "Callable[[Named, str], content_pb2.Content]"
    verb: str


class ChatApp(App[ClientError]):
    """Talks as one device. Returns what ended the client, if it did not end by being closed."""

    CSS_PATH = "screen.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "begin", "New", priority=True),
        Binding("ctrl+f", "search", "Search", priority=True),
        Binding("f2", "safety", "Safety number"),
        Binding("f3", "devices", "Devices"),
        Binding("f4", "mute", "Mute"),
        Binding("ctrl+down", "turn(1)", "Next", show=False, priority=True),
        Binding("ctrl+up", "turn(-1)", "Previous", show=False, priority=True),
        Binding("ctrl+q", "quit", "Quit", priority=True),
    ]

    def __init__(
        self,
        client: Talker,
        *,
        peer: bytes | None = None,
        zone: tzinfo | None = None,
        downloads: Path = _DOWNLOADS,
    ) -> None:
        """`peer`: whose conversation is open at first. `zone`: of the times that are shown.

        `downloads`: the folder that files are saved in.
        """
        super().__init__()
        self._client = client
        self._zone = zone
        self._downloads = downloads
        self.chats = Chats(client.user_id)
        self._feed = Feed(client, self.chats, on_change=self._changed)
        self._peer = peer
        self._target: Target | None = None
        self._watched: Chat | None = None
        self._life = Life()
        self._is_stale = asyncio.Event()
        self._drawing = asyncio.Lock()
        self._connection = Label(id="connection")
        self._list = ChatList(id="chats")
        self._title = Label(id="peer")
        self._warning = Label(id="warning")
        self._conversation = Conversation(id="conversation")

    @property
    def open_chat(self) -> Chat | None:
        """The conversation that is open."""
        return None if self._peer is None else self.chats[self._peer]

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            yield Label(Content(f"whimbrel   {self._client.handle}"), id="own")
            yield self._connection
        with Horizontal():
            yield self._list
            with Vertical():
                yield self._title
                yield self._warning
                yield self._conversation
                yield Label(id="doing")
                yield Input(
                    placeholder="Write a message, Enter sends; Shift+Tab to the messages",
                    id="words",
                )
        yield Footer()

    def on_mount(self) -> None:
        """Start to follow the client."""
        self.follow()
        self.keep_drawn()
        self.query_one("#words").focus()

    @work
    async def follow(self) -> None:
        """Feed the chats until the client ends."""
        if self._peer is not None:
            await self._feed.chat_with(self._peer)
        try:
            await self._feed.run()
        except* ClientError as ended:
            self.exit(_first(ended))

    # Drawing.

    def _changed(self) -> None:
        self._is_stale.set()

    @work
    async def keep_drawn(self) -> None:
        """Draw what changes, once for all that changes in a short while; look at the connection."""
        while True:
            self._show_connection()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._is_stale.wait()
                await self.draw()
                await asyncio.sleep(_DRAW_SECONDS)

    async def draw(self) -> None:
        """Draw what has changed."""
        async with self._drawing:
            self._is_stale.clear()
            chats, chat = self.chats.in_order, self.open_chat
            if chat is None and chats:
                chat = chats[0]
                self._peer = chat.peer
            if chat is not None:
                if self.app_focus:
                    await self._feed.read(chat)
                    await self._feed.warned(chat)
                self._follow_life(chat)
                self._show_title(chat)
                await self._conversation.show(chat, self._zone)
                self._show_warning(chat)
            await self._list.show(chats, chat, self._zone)

    def _follow_life(self, chat: Chat) -> None:
        """Watch the open chat, and none before it."""
        if self._watched is not chat:
            self._watched, self._life = chat, Life()
            self.follow_life(chat, self._life)

    @work(exclusive=True, group="life")
    async def follow_life(self, chat: Chat, life: Life) -> None:
        """Take in who is there and who writes, for as long as the chat is open."""
        signs = self._client.presences.watch(chat.peer, is_group=chat.is_group)
        with contextlib.suppress(ClientError):  # `follow` tells it
            async with contextlib.aclosing(signs):
                async for sign in signs:
                    life.note(sign)
                    self._changed()

    def _show_title(self, chat: Chat) -> None:
        words = self._life.words(chat.names, now=datetime.now(UTC), zone=self._zone)
        said = Content.styled(f"   {words}" if words else "", "not bold dim")
        self._title.update(Content(chat.title) + said)

    def _show_warning(self, chat: Chat) -> None:
        self._warning.display = chat.new_identity is not None
        self._warning.update(
            Content(f"{chat.title} has a new identity key: compare the safety number, F2")
        )

    def _show_connection(self) -> None:
        gateway = self._client.gateway
        shown = Content.styled("○ waiting for the mesh", "$text-warning")
        if gateway is not None:
            shown = Content.styled(f"● {gateway}", "$text-success")
        self._connection.update(shown)

    # What the person does.

    @on(Input.Changed, "#words")
    def tell_writing(self, event: Input.Changed) -> None:
        """Let who has the chat open know that the person writes."""
        chat = self.open_chat
        if chat is not None:
            activity = Activity.TYPING if event.value else Activity.STOPPED
            self._client.presences.write(chat.peer, activity, is_group=chat.is_group)

    @on(Input.Submitted, "#words")
    async def say(self, event: Input.Submitted) -> None:
        """Send what was written: new words, an answer or an edit."""
        words, target, chat = event.value, self._target, self.open_chat
        if not words.strip() or chat is None:
            return
        what = words if target is None else target.make(target.bubble.source, words)
        if await self._send(what):
            event.input.clear()
            self._aim(None)

    async def _send(self, what: "str | content_pb2.Content") -> bool:
        assert self._peer is not None  # noqa: S101  # a conversation is open
        try:
            await self._feed.say(self._peer, what)
        except ClientError as error:
            self.notify(str(error), severity="error", markup=False)
            return False
        return True

    @on(BubbleView.Asked)
    async def do_to_message(self, event: BubbleView.Asked) -> None:
        """React to a message, answer, edit it or take it back; save its file."""
        chat = self.open_chat
        bubble = None if chat is None else chat.bubble(event.name)
        if bubble is None or event.what == "leave":
            self._aim(None)
        elif event.what == "save":
            self._save(bubble)
        elif not bubble.can_be_named:
            self.notify("There is nothing to refer to.", severity="warning")
        elif event.what == "react":
            self._react(bubble)
        elif event.what == "answer":
            self._aim(Target(bubble, reply, "Answering"))
        elif not bubble.can_change:
            self.notify("Only its author may change a message.", severity="warning")
        elif event.what == "delete":
            await self._send(delete(bubble.source))
        elif bubble.words is not None:
            self._aim(Target(bubble, edit, "Editing"))
            self.query_one("#words", Input).value = bubble.words
        if event.what in {"leave", "answer", "edit"}:
            self.query_one("#words").focus()

    @work
    async def _save(self, bubble: Bubble) -> None:
        try:
            path = await self._client.files.save(bubble.source, self._downloads)
        except (ClientError, OSError) as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.notify(f"Saved as {path}", markup=False)

    @work
    async def _react(self, bubble: Bubble) -> None:
        sign = await self.push_screen_wait(SignPane())
        if sign is not None:
            await self._send(reaction(bubble.source, sign))

    def _aim(self, target: Target | None) -> None:
        self._target = target
        doing = self.query_one("#doing", Label)
        doing.display = target is not None
        if target is not None:
            doing.update(Content(f"{target.verb}: {target.bubble.text}"))

    @on(ListView.Selected, "#chats")
    def open_selected(self, event: ListView.Selected) -> None:
        """Open the conversation that was chosen in the list."""
        if isinstance(event.item, ChatList.Line):
            self._open(event.item.peer)

    def action_turn(self, by: int) -> None:
        """Open the next conversation, or the one before."""
        peers = [chat.peer for chat in self.chats.in_order]
        if self._peer in peers:
            self._open(peers[(peers.index(self._peer) + by) % len(peers)])

    def _open(self, peer: bytes) -> None:
        if peer != self._peer:
            self._peer = peer
            self._aim(None)
        self._changed()
        self.query_one("#words").focus()

    @work
    async def action_begin(self) -> None:
        """Ask whom to talk to, and open the conversation."""
        who = await self.push_screen_wait(NamePane())
        if who is None:
            return
        try:
            peer = await account_of(self._client, who)
        except ClientError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        await self._feed.chat_with(peer)
        self._open(peer)

    @work
    async def action_search(self) -> None:
        """Find a message, and open its conversation there."""
        found = await self.push_screen_wait(SearchPane(self._found))
        if found is None:
            return
        chat, bubble = found
        self._open(chat.peer)
        await self.draw()
        view = self._conversation.view_of(bubble.name)
        if view is not None:
            view.focus()

    def _found(self, words: str) -> list[Found]:
        return self.chats.found(words, limit=_MOST_FOUND)

    @work
    async def action_safety(self) -> None:
        """Show the safety number of the conversation that is open."""
        chat = self.open_chat
        if chat is None:
            return
        try:
            number = await self._client.safety_number(chat.peer)
        except ClientError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        chat.new_identity = None
        await self.push_screen_wait(SafetyPane(chat.title, number))
        self._changed()

    @work
    async def action_mute(self) -> None:
        """Silence the conversation that is open, or end its silence."""
        chat = self.open_chat
        span = None if chat is None else await self.push_screen_wait(MutePane(chat, self._zone))
        if chat is None or span is None:
            return
        until = min(FOR_EVER - datetime.now(UTC), span) + datetime.now(UTC) if span else None
        try:
            await self._client.mutes.set(chat.peer, until)
        except ClientError as error:
            self.notify(str(error), severity="error", markup=False)

    @work
    async def action_devices(self) -> None:
        """Show the own devices."""
        try:
            devices = await self._client.devices()
        except ClientError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        await self.push_screen_wait(DevicesPane(devices, own=self._client.device_id))


def _first(error: BaseException) -> ClientError:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ClientError)  # noqa: S101  # what was caught
    return error
