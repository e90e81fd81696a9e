"""A client without a mesh that says what a script tells it: for the picture and the tests."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from whimbrel_client import (
    Conversation,
    FileMissing,
    HandleUnknown,
    IdentityChange,
    IdentityUnknown,
    LinkedDevice,
    Message,
    Outcome,
    OutgoingMessage,
    Receipt,
    SendState,
    SeqRanges,
)
from whimbrel_client.crypto import SafetyNumber, safety_number
from whimbrel_client.groups.model import Group, Permissions, Role, Tally
from whimbrel_client.kept import queued_of
from whimbrel_client.payload import text
from whimbrel_client.presence import Activity, Sign

if TYPE_CHECKING:
    from whimbrel.content.v1.content_pb2 import Content

T = TypeVar("T")

_BEGIN = datetime(2026, 3, 27, 21, 4, tzinfo=UTC)


class Rehearsal:
    """Answers as a client does, from what a script told it; time goes a minute a message."""

    def __init__(self, handle: str, *others: str) -> None:
        self.handle = handle
        self.device_id = 1
        self.gateway: str | None = "localhost:50051"
        self.user_id = _id_of(handle)
        self.people = {other: _id_of(other) for other in others}
        # Handles by phone number.
        self.numbers: dict[str, str] = {}
        self.read: dict[bytes, int] = {}
        self.sent: list[OutgoingMessage] = []
        # Set: sends stay unanswered.
        self.is_silent = False
        self._received = _Kept[Message]()
        self._receipts = _Kept[Receipt]()
        self._changes = _Kept[IdentityChange]()
        self.history = _Past()
        self.mutes = _Silences()
        self.groups = _Circles()
        self.files = _Savings()
        self.presences = _Lives()
        self._last_seq: dict[bytes, int] = {}
        self._answered = asyncio.Condition()

    # What the script does.

    def make_group(self, name: str) -> Group:
        """There is a group of everybody."""
        group_id = _id_of(name)
        roles = dict.fromkeys(self.people.values(), Role.MEMBER) | {self.user_id: Role.OWNER}
        group = Group(group_id, name, "", 1, True, Permissions(), None, roles)
        self.groups.known.add([group])
        return group

    def tally(self, group: Group, tally: Tally) -> None:
        """So many members have the last own message to the group."""
        message = next(one for one in reversed(self.sent) if one.conversation == group.group_id)
        self.groups.tallies[message.local_id] = tally
        version = len(self._receipts.all) + 1
        self._receipts.add(Receipt(version, group.group_id, group.group_id, SeqRanges(), 0))

    def hear(self, who: str, what: "str | Content", *, group: Group | None = None) -> Message:
        """Somebody said something, to the person or to a group."""
        peer = self.people[who] if group is None else group.group_id
        seq, at = self._next(peer)
        content = text(what) if isinstance(what, str) else what
        content.id = content.id or _id_of(f"{who} {seq}")
        message = Message(
            cursor=len(self._received.all) + 1,
            conversation=peer,
            seq=seq,
            message_id=_id_of(f"at {seq}"),
            sender=self.people[who],
            sender_device=1,
            accepted_at=at,
            content=content,
        )
        self._received.add(message)
        return message

    def receive_receipt(self, who: str, *, delivered: int, read: int) -> Receipt:
        """Somebody has received and read so much."""
        version, peer = len(self._receipts.all) + 1, self.people[who]
        ranges = SeqRanges([(1, delivered)])
        receipt = Receipt(version, peer, peer, ranges, read)
        self._receipts.add(receipt)
        return receipt

    def change_identity(self, who: str) -> None:
        """Somebody comes with another identity key."""
        cursor = len(self._changes.all) + 1
        self._changes.add(IdentityChange(cursor, self.people[who], b"old", b"new"))

    def end(self, error: Exception) -> None:
        """The client fails."""
        self._received.end(error)

    # What a client does.

    async def user_named(self, handle: str) -> bytes:
        if handle not in self.people:
            raise HandleUnknown("HANDLE_UNKNOWN", f"nobody is called {handle}")
        return self.people[handle]

    async def user_at(self, number: str) -> bytes:
        if number not in self.numbers:
            raise HandleUnknown("HANDLE_UNKNOWN", f"nobody has {number}")
        return self.people[self.numbers[number]]

    async def handle_of(self, user_id: bytes) -> str | None:
        return next((who for who, known in self.people.items() if known == user_id), None)

    async def conversations(self) -> list[Conversation]:
        return [
            Conversation(peer, None, last_seq, self.read.get(peer, 0), unread=0, waiting=0)
            for peer, last_seq in self._last_seq.items()
        ]

    async def send(self, to: bytes | str, what: "str | Content") -> OutgoingMessage:
        """Queue it; the mesh answers at once, unless it is silent."""
        peer = self.people[to] if isinstance(to, str) else to
        content = text(what) if isinstance(what, str) else what
        queued = queued_of(peer, content)
        content.id, content.to = content.id or queued.client_message_id, peer
        local_id = len(self.sent) + 1
        message = OutgoingMessage(
            local_id, peer, client_message_id=queued.client_message_id, content=content
        )
        message.author = self.user_id
        self.sent.append(message)
        if not self.is_silent:
            await self.answer(message)
        return message

    async def answer(self, message: OutgoingMessage, *, reason: str | None = None) -> None:
        """The mesh accepts the message, or refuses it for a reason."""
        if reason is None:
            seq, at = self._next(message.conversation)
            message.outcome = Outcome(SendState.ACCEPTED, _id_of(f"at {seq}"), seq, at)
        else:
            message.outcome = Outcome(SendState.REFUSED, reason=reason)
        async with self._answered:
            self._answered.notify_all()

    async def accepted(self, message: OutgoingMessage) -> Outcome:
        async with self._answered:
            await self._answered.wait_for(lambda: message.outcome is not None)
        assert message.outcome is not None  # noqa: S101  # waited for
        return message.outcome

    async def outgoing(self, after: int = 0) -> list[OutgoingMessage]:
        return self.sent[after:]

    def messages(self) -> AsyncIterator[Message]:
        return self._received.follow()

    def receipts(self) -> AsyncIterator[Receipt]:
        return self._receipts.follow()

    def identity_changes(self) -> AsyncIterator[IdentityChange]:
        return self._changes.follow()

    async def saw_identity_change(self, change: IdentityChange) -> None:
        place = self._changes.all.index(change)
        self._changes.all[place] = replace(change, is_seen=True)

    async def mark_read(self, conversation: bytes, up_to_seq: int) -> None:
        self.read[conversation] = up_to_seq

    async def safety_number(self, user_id: bytes) -> SafetyNumber:
        if not self._last_seq.get(user_id):
            raise IdentityUnknown("nothing was exchanged with this account yet")
        ids = (self.user_id, user_id)
        own, theirs = (b"\x05" + one + one for one in ids)
        return safety_number(
            local_id=ids[0], local_identity=own, remote_id=ids[1], remote_identity=theirs
        )

    async def devices(self) -> list[LinkedDevice]:
        return [LinkedDevice(1, _BEGIN, _BEGIN), LinkedDevice(2, _BEGIN, None, "laptop")]

    def _next(self, peer: bytes) -> tuple[int, datetime]:
        seq = self._last_seq[peer] = self._last_seq.get(peer, 0) + 1
        return seq, _BEGIN + timedelta(minutes=seq)


class _Kept(Generic[T]):
    """What came, for whoever follows it from the beginning."""

    def __init__(self) -> None:
        self.all: list[T] = []
        self._more = asyncio.Event()
        self._error: Exception | None = None

    def add(self, one: T) -> None:
        self.all.append(one)
        self._more.set()

    def end(self, error: Exception) -> None:
        self._error = error
        self._more.set()

    async def follow(self) -> AsyncIterator[T]:
        told = 0
        while self._error is None:
            while told < len(self.all):
                told += 1
                yield self.all[told - 1]
            self._more.clear()
            await self._more.wait()
        raise self._error


class _Circles:
    """The groups."""

    def __init__(self) -> None:
        self.known = _Kept[list[Group]]()
        self.tallies: dict[int, Tally] = {}

    async def all(self) -> list[Group]:
        return self.known.all[-1] if self.known.all else []

    def follow(self) -> AsyncIterator[list[Group]]:
        return self.known.follow()

    async def tally(self, message: OutgoingMessage) -> Tally | None:
        return self.tallies.get(message.local_id)


class _Lives:
    """Who is there, and who writes: `told` by chat, and what the person `wrote`."""

    def __init__(self) -> None:
        self.watched = b"", False
        self.told: defaultdict[bytes, _Kept[Sign]] = defaultdict(_Kept)
        self.wrote: list[tuple[bytes, bool, Activity]] = []

    async def watch(self, chat: bytes, *, is_group: bool = False) -> AsyncGenerator[Sign, None]:
        self.watched = chat, is_group
        async for sign in self.told[chat].follow():
            yield sign

    def write(self, chat: bytes, activity: Activity, *, is_group: bool = False) -> None:
        self.wrote.append((chat, is_group, activity))


class _Savings:
    """Files that are where they were asked for."""

    async def save(self, message: Message | OutgoingMessage, folder: Path) -> Path:
        if message.content is None or not message.content.HasField("media"):
            raise FileMissing("the message has no file")
        return folder / message.content.media.name


class _Past:
    """What the primary handed over."""

    def __init__(self) -> None:
        self.all: list[Message] = []

    async def messages(self) -> AsyncIterator[Message]:
        for message in self.all:
            yield message


class _Silences:
    """Which conversations make no sound."""

    def __init__(self) -> None:
        self._decided = _Kept[dict[bytes, datetime]]()
        self._decided.add({})

    async def set(self, user_id: bytes, until: datetime | None) -> None:
        others = {one: at for one, at in self._decided.all[-1].items() if one != user_id}
        self._decided.add(others if until is None else others | {user_id: until})

    def follow(self) -> AsyncIterator[dict[bytes, datetime]]:
        return self._decided.follow()


def _id_of(name: str) -> bytes:
    return name.encode().rjust(16, b"\0")[:16]
