"""How a message, a conversation and a QR code look, as text with styles."""

import functools
from collections import Counter
from datetime import datetime, timedelta, tzinfo

import segno
from textual.content import Content

from whimbrel_cli.screen.bubble import Bubble
from whimbrel_cli.screen.chats import Chat
from whimbrel_client import Mark, Tick
from whimbrel_client.media.pictures import pixels_of, thumbnail_in
from whimbrel_client.mutes import FOR_EVER

_TICKS = {
    Tick.WAITING: ("…", ""),
    Tick.SENT: ("✓", ""),
    Tick.DELIVERED: ("✓✓", ""),
    Tick.READ: ("✓✓", "bold #4db5ff"),
}
_QUIET_ZONE = 2
_PICTURE_EDGE = 32  # columns, and half rows
# Two rows of the code in one of the terminal, by (upper is dark, lower is dark).
_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}


def words_of(bubble: Bubble, *, answered: Bubble | None) -> Content:
    """What stands in the bubble."""
    parts: list[Content] = []
    if bubble.author:
        parts.append(Content.styled(f"{bubble.author}\n", "bold"))
    if bubble.answers is not None:
        quoted = answered.text if answered is not None else "…"
        parts.append(Content.styled(f"│ {_first_line(quoted)}\n", "dim"))
    parts.append(small_picture(bubble.thumbnail))
    is_plain = bubble.words is not None and bubble.mark is not Mark.DELETED
    parts.append(Content(bubble.text) if is_plain else Content.styled(bubble.text, "dim italic"))
    if bubble.signs:
        parts.append(Content(f"\n{_signs_of(bubble)}"))
    if bubble.trouble:
        parts.append(Content.styled(f"\n{bubble.trouble}", "bold $text-error"))
    return Content("").join(parts)


def foot_of(bubble: Bubble, zone: tzinfo | None) -> Content:
    """When it was said, and what became of it."""
    parts = [Content(time_of(bubble.at, zone))]
    if bubble.mark is Mark.EDITED:
        parts.insert(0, Content.styled("edited", "italic"))
    if bubble.tick is not None and not bubble.trouble:
        parts.append(Content.styled(*_TICKS[bubble.tick]))
    if bubble.tally is not None:
        delivered, read, of = bubble.tally
        parts.append(Content(f"delivered {delivered}/{of} read {read}/{of}"))
    return Content(" ").join(part for part in parts if part.plain)


def line_of(chat: Chat, zone: tzinfo | None) -> Content:
    """A conversation in the list of them; a muted one stands back."""
    last, unread = chat.last, chat.unread
    name = Content.styled(chat.title, "dim" if chat.is_muted else "bold")
    style = "dim" if chat.is_muted else "bold $success"
    count = Content.styled(f"  {unread} ", style) if unread else Content("")
    has_changed = chat.new_identity is not None
    warning = Content.styled(" !", "bold $warning") if has_changed else Content("")
    below = muted_of(chat, zone) or (_first_line(last.text) if last is not None else "")
    return Content.assemble(name, warning, count, "\n", (below, "dim"))


def muted_of(chat: Chat, zone: tzinfo | None) -> str:
    """Until when the conversation is silent; empty: it is not."""
    if not chat.is_muted or chat.muted_until is None:
        return ""
    if chat.muted_until >= FOR_EVER - timedelta(days=1):
        return "muted"
    return f"muted until {chat.muted_until.astimezone(zone):%Y-%m-%d %H:%M}"


def time_of(at: datetime | None, zone: tzinfo | None) -> str:
    """The time of day there; zone None: that of this machine."""
    return "" if at is None else f"{at.astimezone(zone):%H:%M}"


@functools.lru_cache(maxsize=256)
def small_picture(jpeg: bytes) -> Content:
    """A file's small picture in half blocks and a line's end; nothing if it is none."""
    image = thumbnail_in(jpeg)
    if image is None:
        return Content("")
    image.thumbnail((_PICTURE_EDGE, _PICTURE_EDGE))
    width, height = image.width, image.height // 2 * 2
    colours = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in pixels_of(image)]
    parts: list[Content] = []
    for row in range(0, height, 2):
        upper = colours[row * width : (row + 1) * width]
        lower = colours[(row + 1) * width : (row + 2) * width]
        parts += [
            Content.styled("▀", f"{one} on {other}")
            for one, other in zip(upper, lower, strict=True)
        ]
        parts.append(Content("\n"))
    return Content("").join(parts)


def qr_of(message: bytes) -> str:
    """A QR code in half blocks, for dark on light."""
    code = segno.make_qr(message, mode="byte", error="m")
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=_QUIET_ZONE)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return "\n".join(
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True)) for upper, lower in pairs
    )


def _first_line(text: str) -> str:
    line = text.partition("\n")[0]
    return f"{line[:39]}…" if len(line) > 40 else line


def _signs_of(bubble: Bubble) -> str:
    counts = Counter(bubble.signs.values())
    return "  ".join(sign if many == 1 else f"{sign} {many}" for sign, many in counts.items())
