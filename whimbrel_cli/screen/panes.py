"""What opens over the conversations: safety number, devices, search, a name to talk to, a sign."""

from collections.abc import Callable
from datetime import timedelta, tzinfo
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, ListItem, ListView, Static

from whimbrel_cli.screen.bubble import Bubble
from whimbrel_cli.screen.chats import Chat
from whimbrel_cli.screen.drawing import muted_of, qr_of
from whimbrel_cli.wording import groups_of, printable
from whimbrel_client import LinkedDevice
from whimbrel_client.crypto import SafetyNumber

Found = tuple[Chat, Bubble]
_SIGNS = ("👍", "❤️", "😂", "😮", "😢", "🙏")
_SPANS = {
    "off": timedelta(0),
    "an hour": timedelta(hours=1),
    "8 hours": timedelta(hours=8),
    "a week": timedelta(weeks=1),
    "always": timedelta.max,
}
_CLOSE: list[BindingType] = [("escape", "dismiss", "Close")]


class SafetyPane(ModalScreen[None]):
    """The number that two people compare."""

    BINDINGS: ClassVar[list[BindingType]] = _CLOSE

    def __init__(self, name: str, number: SafetyNumber) -> None:
        super().__init__()
        self._peer = name
        self._number = number

    def compose(self) -> ComposeResult:
        with Vertical(classes="pane"):
            yield Label(Content(f"Safety number with {self._peer}"), classes="title")
            yield Static(qr_of(self._number.scannable()), id="qr", markup=False)
            yield Static(groups_of(self._number.digits()), id="digits", markup=False)
            yield Label("Compare it face to face: the same on both sides, nobody is in between.")


class DevicesPane(ModalScreen[None]):
    """The devices of the own account."""

    BINDINGS: ClassVar[list[BindingType]] = _CLOSE

    def __init__(self, devices: list[LinkedDevice], *, own: int) -> None:
        super().__init__()
        self._devices = devices
        self._own = own

    def compose(self) -> ComposeResult:
        with Vertical(classes="pane"):
            yield Label("Your devices", classes="title")
            for device in self._devices:
                yield Static(_line_of(device, own=self._own), markup=False, classes="device")


class SearchPane(ModalScreen[Found | None]):
    """Finds messages by their words, in what this device keeps."""

    BINDINGS: ClassVar[list[BindingType]] = _CLOSE

    def __init__(self, search: Callable[[str], list[Found]]) -> None:
        super().__init__()
        self._search = search
        self._found: list[Found] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="pane"):
            yield Label("Search", classes="title")
            yield Input(placeholder="words", id="words")
            yield ListView(id="found")

    @on(Input.Changed)
    async def show_found(self, event: Input.Changed) -> None:
        """Show what has the words, as they are typed."""
        self._found = self._search(event.value)
        found = self.query_one("#found", ListView)
        await found.clear()
        await found.extend(ListItem(Label(_hit(*one))) for one in self._found)

    @on(Input.Submitted)
    def take_first(self) -> None:
        """Go to the first."""
        if self._found:
            _ = self.dismiss(self._found[0])

    @on(ListView.Selected)
    def take(self, event: ListView.Selected) -> None:
        """Go to the one that was chosen."""
        _ = self.dismiss(self._found[event.index])


class NamePane(ModalScreen[str | None]):
    """Asks whom to talk to."""

    BINDINGS: ClassVar[list[BindingType]] = _CLOSE

    def compose(self) -> ComposeResult:
        with Vertical(classes="pane"):
            yield Label("Whom do you want to talk to?", classes="title")
            yield Input(placeholder="handle, or number as +49…", id="handle")

    @on(Input.Submitted)
    def take(self, event: Input.Submitted) -> None:
        """Return the handle or number."""
        _ = self.dismiss(event.value.strip() or None)


class SignPane(ModalScreen[str | None]):
    """Asks for a sign to put on a message; an empty one takes it back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *_CLOSE,
        *((str(number), f"take({number})", sign) for number, sign in enumerate(_SIGNS, 1)),
        ("0", "take(0)", "None"),
    ]

    def compose(self) -> ComposeResult:
        signs = "   ".join(f"{number} {sign}" for number, sign in enumerate(_SIGNS, 1))
        with Vertical(classes="pane"):
            yield Label(f"{signs}   0 none")

    def action_take(self, number: int) -> None:
        """Return the sign."""
        _ = self.dismiss(_SIGNS[number - 1] if number else "")


class MutePane(ModalScreen[timedelta | None]):
    """Asks for how long a conversation is to be silent; zero: not any more."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *_CLOSE,
        *((str(number), f"take({number})", name) for number, name in enumerate(_SPANS)),
    ]

    def __init__(self, chat: Chat, zone: tzinfo | None) -> None:
        super().__init__()
        self._now = muted_of(chat, zone) or "not muted"
        self._peer = chat.title

    def compose(self) -> ComposeResult:
        spans = "   ".join(f"{number} {name}" for number, name in enumerate(_SPANS))
        with Vertical(classes="pane"):
            yield Label(Content(f"{self._peer}: {self._now}"), classes="title")
            yield Label(spans)

    def action_take(self, number: int) -> None:
        """Return the time."""
        _ = self.dismiss(list(_SPANS.values())[number])


def _line_of(device: LinkedDevice, *, own: int) -> str:
    kind = "primary" if device.device_id == 1 else "linked"
    name = f"{printable(device.name)}, " if device.name else ""
    seen = f"{device.last_seen_at:%Y-%m-%d}" if device.last_seen_at else "never"
    this = ", this one" if device.device_id == own else ""
    times = f"since {device.linked_at:%Y-%m-%d}, last seen {seen}"
    return f"{device.device_id}  {name}{kind}{this}   {times}"


def _hit(chat: Chat, bubble: Bubble) -> Content:
    words = " ".join((bubble.words or "").split())
    return Content.assemble((f"{chat.title}  ", "bold"), words)
