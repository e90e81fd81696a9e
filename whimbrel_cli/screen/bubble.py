"""One message as people see it, and the reading of the SDK's messages into it."""

from dataclasses import dataclass, field
from datetime import datetime

from whimbrel_cli.wording import UNREADABLE, about, printable
from whimbrel_client import Mark, Message, OutgoingMessage, SendState, Tick
from whimbrel_client.groups.model import Tally

# How everybody names a message: who wrote it, and what they called it.
Name = tuple[bytes, bytes]

# They change another message instead of being one.
CHANGES = frozenset({"reaction", "edit", "delete"})


@dataclass(slots=True)
class Bubble:
    """A message on the screen."""

    name: Name
    # The SDK's own message: what replies, reactions and edits refer to.
    source: Message | OutgoingMessage
    is_own: bool
    # None: there is nothing to read but `about`.
    words: str | None
    # What stands there instead of words.
    about: str = ""
    mark: Mark = Mark.NONE
    answers: Name | None = None
    # The place in the conversation and the time, once the mesh has it.
    seq: int | None = None
    at: datetime | None = None
    local_id: int = 0
    tick: Tick | None = None
    # Who wrote it, in a group, and what became of an own one there.
    author: str = ""
    tally: Tally | None = None
    # Why it was not sent.
    trouble: str = ""
    # The latest sign of each person.
    signs: dict[bytes, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[int, int]:
        """Sorts a conversation: what the mesh has by its seq, then what waits."""
        return (0, self.seq) if self.seq is not None else (1, self.local_id)

    @property
    def can_change(self) -> bool:
        """Whether the person may edit it or take it back."""
        return self.is_own and self.can_be_named

    @property
    def can_be_named(self) -> bool:
        """Whether others know which message is meant: one that cannot be read has no name."""
        return bool(self.source.name.id) and self.mark is not Mark.DELETED and not self.trouble

    @property
    def text(self) -> str:
        """What is read in its place."""
        if self.mark is Mark.DELETED:
            return "taken back"
        return self.about if self.words is None else self.words

    @property
    def thumbnail(self) -> bytes:
        """The small picture of its file, as its author made it; empty: none."""
        content = self.source.content
        if content is None or self.mark is Mark.DELETED or not content.HasField("media"):
            return b""
        return content.media.thumbnail

    def edited(self, words: str) -> None:
        """The author says it in other words."""
        if self.mark is not Mark.DELETED:
            self.words, self.mark = words, Mark.EDITED

    def taken_back(self) -> None:
        """The author takes it back."""
        self.words, self.mark = None, Mark.DELETED
        self.signs.clear()

    def settled(self, message: OutgoingMessage) -> None:
        """Note how the send ended, if it has ended."""
        outcome = message.outcome
        if outcome is None:
            return
        self.seq, self.at = outcome.seq, outcome.accepted_at
        if outcome.state is SendState.ACCEPTED:
            self.tick = max(self.tick or Tick.SENT, Tick.SENT)
        elif outcome.state is SendState.REFUSED:
            self.trouble = f"not sent: {outcome.reason}"
        else:
            self.trouble = "not confirmed: it may have arrived"


def bubble_of_received(message: Message, *, own: bytes) -> Bubble:
    """From a message that came; own ones come from other devices of the account."""
    content = message.content
    is_own = message.sender == own
    return Bubble(
        # What cannot be read has no name but the server's.
        name=(message.sender, (content.id if content else b"") or message.message_id),
        source=message,
        is_own=is_own,
        words=None if message.text is None else printable(message.text),
        about=UNREADABLE if content is None else about(content),
        mark=message.mark,
        answers=_answered(message),
        seq=message.seq,
        at=message.accepted_at,
        tick=Tick.SENT if is_own else None,
    )


def bubble_of_own(message: OutgoingMessage) -> Bubble:
    """From a message of this device."""
    bubble = Bubble(
        name=name_of(message),
        source=message,
        is_own=True,
        words=None if message.text is None else printable(message.text),
        about="" if message.content is None else about(message.content),
        mark=message.mark,
        answers=_answered(message),
        local_id=message.local_id,
        tick=Tick.WAITING,
    )
    bubble.settled(message)
    return bubble


def name_of(message: OutgoingMessage) -> Name:
    """How everybody names an own message."""
    return (message.author, message.client_message_id)


def _answered(message: Message | OutgoingMessage) -> Name | None:
    content = message.content
    if content is None or not content.HasField("reply_to"):
        return None
    return (content.reply_to.author, content.reply_to.id)
