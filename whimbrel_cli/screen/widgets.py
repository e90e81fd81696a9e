"""The parts of the screen: the list of conversations, and the bubbles of one."""

from datetime import tzinfo
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Label, ListItem, ListView, Static

from whimbrel_cli.screen.bubble import Bubble, Name
from whimbrel_cli.screen.chats import Chat
from whimbrel_cli.screen.drawing import foot_of, line_of, words_of

# More than this of one conversation is found by searching.
MOST_BUBBLES = 200


class BubbleView(Static, can_focus=True):
    """One message; focused, it can be answered, signed, edited, taken back, its file saved."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("r", "ask('react')", "React"),
        ("a", "ask('answer')", "Answer"),
        ("e", "ask('edit')", "Edit"),
        ("d", "ask('delete')", "Take back"),
        ("s", "ask('save')", "Save"),
        ("up,k", "app.focus_previous", "Up"),
        ("down,j", "app.focus_next", "Down"),
        ("escape", "ask('leave')", "Write"),
    ]

    class Asked(Message):
        """The person wants to do something to the message."""

        def __init__(self, name: Name, what: str) -> None:
            super().__init__()
            self.name = name
            self.what = what

    def __init__(self, bubble: Bubble) -> None:
        super().__init__(markup=False)
        self.bubble_name = bubble.name

    def action_ask(self, what: str) -> None:
        """Say what the person wants."""
        self.post_message(self.Asked(self.bubble_name, what))

    def show(self, bubble: Bubble, chat: Chat, zone: tzinfo | None) -> None:
        """Draw the message as it is now."""
        foot = foot_of(bubble, zone)
        words = words_of(bubble, answered=chat.bubble(bubble.answers))
        if words != self.content:
            self.update(words)
        if foot.markup != self.border_subtitle:
            self.border_subtitle = foot.markup
            self.styles.min_width = max(cell_len(foot.plain) + 6, 12)


class BubbleRow(Horizontal):
    """A line of the conversation: own messages stand right, others left."""

    def __init__(self, bubble: Bubble) -> None:
        super().__init__(classes="own" if bubble.is_own else "other")
        self.view = BubbleView(bubble)

    def compose(self) -> ComposeResult:
        yield self.view


class Conversation(VerticalScroll, can_focus=False):
    """The bubbles of the conversation that is open."""

    async def show(self, chat: Chat, zone: tzinfo | None) -> None:
        """Draw what has changed; stay at the end if that is where the person is."""
        is_at_end = self.scroll_y >= self.max_scroll_y - 1
        bubbles = chat.bubbles[-MOST_BUBBLES:]
        rows = await self._rows_for(bubbles)
        for row, bubble in zip(rows, bubbles, strict=True):
            row.view.show(bubble, chat, zone)
        if is_at_end:
            self.scroll_end(animate=False)

    def view_of(self, name: Name) -> BubbleView | None:
        """The message of this name, if it is drawn."""
        views = (row.view for row in self.query(BubbleRow))
        return next((view for view in views if view.bubble_name == name), None)

    async def _rows_for(self, bubbles: list[Bubble]) -> list[BubbleRow]:
        rows = list(self.query(BubbleRow))
        drawn = [row.view.bubble_name for row in rows]
        names = [bubble.name for bubble in bubbles]
        if names[: len(drawn)] != drawn:
            await self.remove_children()
            rows = []
        more = [BubbleRow(bubble) for bubble in bubbles[len(rows) :]]
        if more:
            await self.mount_all(more)
        return rows + more


class ChatList(ListView):
    """All conversations, with what is unread."""

    class Line(ListItem):
        """One of them."""

        def __init__(self, chat: Chat, zone: tzinfo | None) -> None:
            self.label = Label(line_of(chat, zone))
            super().__init__(self.label)
            self.peer = chat.peer

    async def show(self, chats: list[Chat], open_chat: Chat | None, zone: tzinfo | None) -> None:
        """Draw what has changed."""
        lines = list(self.query(ChatList.Line))
        if [line.peer for line in lines] != [chat.peer for chat in chats]:
            await self.clear()
            lines = [ChatList.Line(chat, zone) for chat in chats]
            await self.extend(lines)
        for line, chat in zip(lines, chats, strict=True):
            line.label.update(line_of(chat, zone))
            line.set_class(chat is open_chat, "open")
        if open_chat in chats:
            self.index = chats.index(open_chat)
