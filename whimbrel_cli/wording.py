"""What a message says, in words that a terminal can show: for the lines and for the screen."""

from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from whimbrel_client import Mark, Message
from whimbrel_client.payload import kind_of

if TYPE_CHECKING:
    from whimbrel.content.v1.content_pb2 import Contact, Content, Location, Media, Poll

UNREADABLE = "could not be decrypted; asked to be sent again"

_MEDIA = ("file", "picture", "film", "audio", "voice note", "document")  # by MediaKind
_UNITS = ("bytes", "KiB", "MiB", "GiB")
_KEPT = frozenset("\n\t\u200d")  # the last one joins emoji


def printable(text: str) -> str:
    """Without what could move a terminal's cursor or turn the writing round."""
    return "".join(c if c.isprintable() or c in _KEPT else "\ufffd" for c in text)


def words_of(message: Message) -> str:
    """A received message as one line, which nobody can make look like two."""
    return _said(message).replace("\n", "\ufffd")


def _said(message: Message) -> str:
    if message.content is None:
        return f"({UNREADABLE})"
    if message.mark is Mark.DELETED:
        return "(taken back)"
    if message.text is None:
        return about(message.content)
    edited = "(edited) " if message.kind == "edit" else ""
    return edited + printable(message.text)


def about(content: "Content") -> str:
    """What stands in the place of words: what it is, and the little that can be told of it."""
    match kind_of(content):
        case "media":
            told = _media(content.media)
        case "contact":
            told = _contact(content.contact)
        case "location":
            told = _location(content.location)
        case "poll":
            told = _poll(content.poll)
        case "reaction":
            told = f"reacts: {content.reaction.emoji}" if content.reaction.emoji else "no reaction"
        case "delete":
            told = "takes a message back"
        case "timer":
            seconds = content.timer.seconds
            told = f"messages go {seconds:,} s after reading" if seconds else "messages stay"
        case "":
            told = "newer than this version"
        case kind:
            told = kind.replace("_", " ")
    return f"({printable(told)})"


def groups_of(digits: str) -> str:
    """The 60 digits of a safety number in three rows, as people read them to each other."""
    groups = [digits[start : start + 5] for start in range(0, len(digits), 5)]
    return "\n".join("  ".join(groups[start : start + 4]) for start in range(0, len(groups), 4))


def _media(media: "Media") -> str:
    # A kind that is newer than this version is a file too.
    kind = _MEDIA[media.kind] if media.kind < len(_MEDIA) else _MEDIA[0]
    parts = [media.name or media.mime_type, _size(media.size), media.caption]
    return f"{kind}: " + ", ".join(filter(None, parts))


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:,.{1 if unit else 0}f} {_UNITS[unit]}"


def _contact(contact: "Contact") -> str:
    return "contact: " + ", ".join(filter(None, (contact.name, *contact.phone_numbers)))


def _location(place: "Location") -> str:
    where = f"{place.latitude:.5f}, {place.longitude:.5f}"
    return "place: " + ", ".join(filter(None, (place.name, where)))


def _poll(poll: "Poll") -> str:
    return f"poll: {poll.question} {' / '.join(poll.options)}"


def last_seen_words(at: datetime | None, *, now: datetime, zone: tzinfo | None) -> str:
    """When somebody was last seen, as people say it; `zone` None: of this machine."""
    if at is None:
        return "offline"
    at, now = at.astimezone(zone), now.astimezone(zone)
    if at.date() == now.date():
        return f"last seen today {at:%H:%M}"
    return f"last seen {at:%Y-%m-%d %H:%M}"
