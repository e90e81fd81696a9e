"""The view model: all conversations as the screen shows them, fed by what the SDK tells."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from whimbrel_cli.screen.bubble import (
    CHANGES,
    Bubble,
    Name,
    bubble_of_own,
    bubble_of_received,
    name_of,
)
from whimbrel_cli.wording import printable
from whimbrel_client import IdentityChange, Message, OutgoingMessage, Receipt, Tick, id_text
from whimbrel_client.groups.model import Tally
from whimbrel_client.payload import kind_of

if TYPE_CHECKING:
    from whimbrel.content.v1.content_pb2 import Content


@dataclass(slots=True)
class Chat:
    """One conversation."""

    peer: bytes
    own: bytes
    handle: str | None = None
    read_up_to: int = 0
    # The greatest seq that came, of anything: reading up to here reads all.
    last_seq: int = 0
    # Shown until the person looks at the safety number, or starts this program again.
    new_identity: IdentityChange | None = None
    muted_until: datetime | None = None
    is_group: bool = False
    # What members are called, as far as is known.
    names: dict[bytes, str] = field(default_factory=dict)
    _receipt: Receipt | None = None
    _bubbles: dict[Name, Bubble] = field(default_factory=dict)
    # What changes messages may come before them, from other devices.
    _signs: dict[Name, dict[bytes, str]] = field(default_factory=dict)
    _edits: dict[Name, str | None] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Who it is."""
        return printable(self.handle) if self.handle else id_text(self.peer)[-8:]

    @property
    def is_muted(self) -> bool:
        """Whether it is to draw nobody's attention now."""
        return self.muted_until is not None and self.muted_until > datetime.now(UTC)

    @property
    def bubbles(self) -> list[Bubble]:
        """All messages, in order."""
        return sorted(self._bubbles.values(), key=lambda bubble: bubble.place)

    @property
    def last(self) -> Bubble | None:
        """The newest message."""
        return max(self._bubbles.values(), key=lambda bubble: bubble.place, default=None)

    @property
    def unread(self) -> int:
        """How many messages of the other came that were not read."""
        return sum(
            not bubble.is_own and (bubble.seq or 0) > self.read_up_to
            for bubble in self._bubbles.values()
        )

    def bubble(self, name: Name | None) -> Bubble | None:
        """The message of this name, if it is here."""
        return None if name is None else self._bubbles.get(name)

    def received(self, message: Message) -> None:
        """A message came."""
        self.last_seq = max(self.last_seq, message.seq)
        if message.content is not None and message.kind in CHANGES:
            self._change(message.content, author=message.sender)
        else:
            # One of a group that could not be read before comes again under its seq.
            self._bubbles.pop((message.sender, message.message_id), None)
            bubble = bubble_of_received(message, own=self.own)
            if self.is_group and not bubble.is_own:
                bubble.author = self.names.get(message.sender) or id_text(message.sender)[-8:]
            self._add(bubble)

    def said(self, message: OutgoingMessage) -> None:
        """The person said something here, now or in an earlier run."""
        kind = "" if message.content is None else kind_of(message.content)
        if message.content is not None and kind in CHANGES:
            self._change(message.content, author=self.own)
        else:
            self._add(bubble_of_own(message))

    def settled(self, message: OutgoingMessage) -> None:
        """A send has ended."""
        bubble = self._bubbles.get(name_of(message))
        if bubble is not None:
            bubble.settled(message)
            self._tick(bubble)

    def receipted(self, receipt: Receipt) -> None:
        """The other has received or read more."""
        self._receipt = receipt
        for bubble in self._bubbles.values():
            self._tick(bubble)

    def tallied(self, message: OutgoingMessage, tally: Tally) -> None:
        """So many members have received and read an own message."""
        bubble = self._bubbles.get(name_of(message))
        if bubble is not None:
            bubble.tally = tally

    def found(self, words: str) -> Iterator[Bubble]:
        """Messages with these words, the newest first."""
        wanted = words.casefold()
        for bubble in reversed(self.bubbles):
            if bubble.words is not None and wanted in bubble.words.casefold():
                yield bubble

    def _add(self, bubble: Bubble) -> None:
        if bubble.name in self._bubbles:
            return
        self._bubbles[bubble.name] = bubble
        bubble.signs = self._signs.setdefault(bubble.name, {})
        if bubble.name in self._edits:
            self._apply(bubble, self._edits[bubble.name])
        self._tick(bubble)

    def _change(self, content: "Content", *, author: bytes) -> None:
        """React, edit or take back; only its author changes a message, others sign it."""
        kind = kind_of(content)
        what = getattr(content, kind)
        name = (what.target.author, what.target.id)
        if kind == "reaction":
            self._sign(name, author, printable(what.emoji))
        elif author == what.target.author and self._edits.get(name, "") is not None:
            self._edits[name] = printable(what.text.body) if kind == "edit" else None
            if name in self._bubbles:
                self._apply(self._bubbles[name], self._edits[name])

    def _sign(self, name: Name, author: bytes, emoji: str) -> None:
        signs = self._signs.setdefault(name, {})
        signs.pop(author, None)
        if emoji:
            signs[author] = emoji

    def _apply(self, bubble: Bubble, words: str | None) -> None:
        if words is None:
            bubble.taken_back()
        else:
            bubble.edited(words)

    def _tick(self, bubble: Bubble) -> None:
        if self._receipt is not None and bubble.is_own and bubble.seq is not None:
            bubble.tick = max(bubble.tick or Tick.WAITING, self._receipt.tick(bubble.seq))


class Chats:
    """All conversations of one account."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self._chats: dict[bytes, Chat] = {}

    def __getitem__(self, peer: bytes) -> Chat:
        """The conversation with the account; begun if there was none."""
        if peer not in self._chats:
            self._chats[peer] = Chat(peer, self._own)
        return self._chats[peer]

    def __contains__(self, peer: bytes) -> bool:
        """Whether there is such a conversation."""
        return peer in self._chats

    @property
    def in_order(self) -> list[Chat]:
        """All of them, by name: what one reaches for does not move."""
        return sorted(self._chats.values(), key=lambda chat: (chat.title.casefold(), chat.peer))

    def found(self, words: str, *, limit: int) -> list[tuple[Chat, Bubble]]:
        """Messages with these words in any conversation."""
        if not words.strip():
            return []
        pairs = ((chat, bubble) for chat in self.in_order for bubble in chat.found(words))
        return [pair for pair, _ in zip(pairs, range(limit), strict=False)]
